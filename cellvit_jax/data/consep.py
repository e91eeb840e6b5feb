"""CoNSeP's classes (Graham et al. 2019), merged as its benchmark does."""

CLASSES = ("Inflammatory", "Epithelial", "Spindle-shaped", "Other")

# id on disk -> 1-based index into CLASSES. On disk: 1 other, 2 inflammatory, 3 healthy and
# 4 malignant epithelial, 5 fibroblast, 6 muscle, 7 endothelial
MERGED = {1: 4, 2: 1, 3: 2, 4: 2, 5: 3, 6: 3, 7: 3}
