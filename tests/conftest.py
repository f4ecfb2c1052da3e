"""Fixtures every test can use: tiny random models of the supported architectures."""

from __future__ import annotations

import pytest
from transformers import PreTrainedModel

from plumbline.lab.tiny import ARCHITECTURES, tiny


@pytest.fixture(params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest) -> str:
    """The name of each supported architecture in turn."""
    return request.param


@pytest.fixture
def tiny_model(architecture: str) -> PreTrainedModel:
    """A fresh tiny random model of each supported architecture in turn."""
    return tiny(architecture)
