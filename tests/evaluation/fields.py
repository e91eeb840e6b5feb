"""A small data set whose nuclei are painted in, and a network to be measured on it."""

import dataclasses

import numpy as np

from cellvit_jax.card import ModelCard, cell_classes
from cellvit_jax.data import Dataset
from cellvit_jax.evaluation.network import Network
from tests.networks import inference, make, small_config
from tests.training_data import fields

CARD = ModelCard(cell_classes("Long", "Round"), tissues=("Colon", "Skin", "Lung"), tile=64)


def dataset(count=3, side=64, **changes):
    sample = fields.field(side, side)
    tissues = [i % 2 for i in range(count)]
    samples = [
        dataclasses.replace(sample, name=f"field{i}", image=np.roll(sample.image, i, 0), tissue=t)
        for i, t in enumerate(tissues)
    ]
    whole = Dataset("Made", samples, ("Round", "Long"), ("Colon", "Skin"))
    return dataclasses.replace(whole, **changes)


def network(card=CARD, **options):
    model = inference(make(small_config()))
    model.card = card
    return Network(model, **options)
