"""Classifiers of patches and slides over the vectors that `cellvit-jax embed` wrote.

A linear probe, the nearest neighbours, and attention over the patches of a slide (ABMIL); measured
on patients that were not learned from.
"""
