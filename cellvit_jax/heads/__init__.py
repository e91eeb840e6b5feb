"""Cell classifier heads from annotated cells: tokens of a frozen network, a small head over them.

As in CellViT++ (Hörst et al., 2025, arXiv:2501.05269).
"""
