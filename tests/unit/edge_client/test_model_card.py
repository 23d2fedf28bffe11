"""What `edge-client model show` prints: the terms, 80 columns, and nothing that a stranger could smuggle in."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from edge_client.cli.model_card import COLUMNS, card, fields
from nightshift.packages.package import ModelPackage
from nightshift.protocol.errors import MalformedError
from nightshift.protocol.manifest import (
    LORA_PROJECTIONS,
    FileRole,
    HubSource,
    Licence,
    Manifest,
    ModelDimensions,
    PackageFile,
    Quantisation,
    Scheme,
    TokenizerRecord,
    package_id,
)
from nightshift.protocol.openness import REQUIRED, Component, ComponentRecord, MofClass, Openness, OpennessRecord

HASH = "ab" * 32
LONG = "Name the authors, say what was changed, and pass these very terms on to whoever gets the weights from you. " * 3

MANIFEST = Manifest(
    name="A model with a name of quite some length, version 2, instruction-tuned, for conversations at home",
    dimensions=ModelDimensions("llama", 30, 576, 1536, 9, 3, 64, 49152, 2048, 10000.0, 1e-5, tied_embeddings=True),
    quantisation=Quantisation(Scheme.Q4_0, HASH),
    source=HubSource("an-organisation-with-a-long-name/and-a-model-with-one-too-135M-Instruct", "cd" * 20, "m.gguf"),
    tokenizer=TokenizerRecord(HASH, bos=1, eos=2, add_bos=True),
    chat_template="x",
    licence=Licence("LicenseRef-somebodys-own", (LONG.strip(),), ("research",)),
    openness=OpennessRecord({Component.WEIGHTS: ComponentRecord(Openness.OPEN, "x" * 200)}),
    lora_targets=LORA_PROJECTIONS,
    files=tuple(PackageFile(f"{role}.bin", role, 10**9, HASH) for role in FileRole),
)


def shown(manifest: Manifest) -> list[str]:
    package = ModelPackage(Path("/models"), manifest, package_id(manifest.to_bytes()))
    return card(package).splitlines()


def test_no_line_is_longer_than_a_terminal_is_wide() -> None:
    lines = shown(MANIFEST)
    too_long = [line for line in lines[1:] if len(line) > COLUMNS]
    assert too_long == []
    text = "\n".join(lines)
    assert "".join(LONG.split()) in "".join(text.split())  # a duty is never cut
    for word in ("LicenseRef-somebodys-own", "allowed uses: research", "restricted", "m.gguf", "cd" * 20):
        assert word in text


@pytest.mark.parametrize("reached", [0, 1, 2, 3])
def test_the_class_is_said_with_every_component_it_rests_on(reached: int) -> None:
    stated = {component for _, components in REQUIRED[:reached] for component in components}
    record = OpennessRecord({component: ComponentRecord(Openness.OPEN, "MIT") for component in stated})
    manifest = dataclasses.replace(MANIFEST, openness=record)
    text = "\n".join(shown(manifest))
    words = ["cannot be told", "class III, Open Model", "class II, Open Tooling", "class I, Open Science"][reached]
    assert words in text
    for component in Component:
        (line,) = [line for line in text.splitlines() if line.startswith(f"    {component.replace('_', ' ')}  ")]
        assert ("open" in line.split()) == (component in stated)
        assert ("MIT" in line) == (component in stated)
    value = fields(ModelPackage(Path("/models"), manifest, package_id(manifest.to_bytes())))
    expected = [MofClass.UNKNOWN, MofClass.OPEN_MODEL, MofClass.OPEN_TOOLING, MofClass.OPEN_SCIENCE][reached]
    assert value["openness_class"] == expected
    assert value["components"]["datasets"]["state"] == ("open" if reached == 3 else "unknown")


def test_a_name_cannot_steer_the_terminal() -> None:
    with pytest.raises(MalformedError, match="printable"):
        dataclasses.replace(MANIFEST, name="\x1b[2Jmodel")
    with pytest.raises(MalformedError, match="printable"):
        Licence("MIT", ("\x1b[31mpay\x1b[0m",))
    with pytest.raises(MalformedError, match="control characters"):
        ComponentRecord(Openness.OPEN, "MIT\r")
