"""One module for each way in which annotated data lies on a disk.

Each has `NEEDS`, patterns of what must be there, and `open(root)`, which gives its splits by name:
lazily read, so that opening a large set is quick. Which of them fits is told by `data.open`.
"""
