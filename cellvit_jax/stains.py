"""The stains of H&E, as directions in optical density (Ruifrok & Johnston 2001)."""

from __future__ import annotations

import numpy as np

# optical densities of haematoxylin, eosin and the residual in R, G, B
STAINS = np.array([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105], [0.268, 0.570, 0.776]], np.float32)
# density (..., 3) @ UNSTAIN is the amount of each stain
UNSTAIN = np.linalg.inv(STAINS).astype(np.float32)
