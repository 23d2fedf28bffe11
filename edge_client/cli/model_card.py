"""What a model says of itself, for people: 80 columns, the terms first."""

from __future__ import annotations

import textwrap
import time
from typing import TYPE_CHECKING, Any

from edge_client.ledger import readable_size
from nightshift.protocol.openness import REQUIRED, Component, MofClass, Openness, WeightsFreedom

if TYPE_CHECKING:
    from nightshift.packages.package import ModelPackage
    from nightshift.protocol.manifest import Manifest
    from nightshift.protocol.openness import OpennessRecord

COLUMNS = 80
_LABEL = 14
_MARKS = {Openness.OPEN: "open", Openness.CLOSED: "closed", Openness.UNKNOWN: "not stated"}
_CLASSES = {
    MofClass.OPEN_SCIENCE: "class I, Open Science",
    MofClass.OPEN_TOOLING: "class II, Open Tooling",
    MofClass.OPEN_MODEL: "class III, Open Model",
    MofClass.NONE: "no class: something that class III needs is closed",
    MofClass.UNKNOWN: "cannot be told: what class III needs is not all stated",
}
_FREEDOM = {
    WeightsFreedom.FREE: "free: anyone may use, study, change and share them",
    WeightsFreedom.RESTRICTED: "restricted: the licence is not known to be a free one",
    WeightsFreedom.CLOSED: "closed",
    WeightsFreedom.UNKNOWN: "unknown: no licence is stated",
}


def card(package: ModelPackage) -> str:
    """The manifest of a package as text of at most 80 columns."""
    manifest = package.manifest
    licence = manifest.licence
    lines = [manifest.name, package.package_id.hex(), ""]
    lines += _field("uses", manifest.uses.sentence)
    lines += _field("licence", licence.spdx)
    lines += [line for duty in licence.obligations for line in _field("", f"you must: {duty}")]
    if licence.allowed_uses:
        lines += _field("", f"allowed uses: {', '.join(licence.allowed_uses)}")
    lines += _field("weights", _FREEDOM[manifest.openness.weights_freedom])
    lines += _field("openness", _CLASSES[manifest.openness.mof_class])
    lines += ["", "components of the Model Openness Framework", *_components(manifest.openness), ""]
    lines += _shape(manifest)
    if manifest.source is not None:
        lines += _field("source", f"{manifest.source.repository} {manifest.source.file}".strip())
        lines += _field("", f"commit {manifest.source.revision}")
    lines += _field("made from", f"SHA-256 {manifest.quantisation.source_sha256[:32]}…")
    lines += ["", "files"]
    lines += [f"  {file.name:24}{readable_size(file.size_bytes):>9}  {file.sha256[:16]}…" for file in manifest.files]
    return "\n".join([*lines, "", f"{'directory':{_LABEL}}{package.directory}"])


def fields(package: ModelPackage) -> dict[str, Any]:
    """The same for programs."""
    manifest, size = package.manifest, package.manifest.dimensions
    return {
        "id": package.package_id.hex(),
        "name": manifest.name,
        "uses": manifest.uses.value,
        "family": size.family,
        "layers": size.layers,
        "hidden": size.hidden,
        "vocabulary": size.vocabulary,
        "context_tokens": size.context,
        "quantisation": manifest.quantisation.scheme.value,
        "licence": manifest.licence.spdx,
        "obligations": list(manifest.licence.obligations),
        "allowed_uses": list(manifest.licence.allowed_uses),
        "openness_class": manifest.openness.mof_class.value,
        "weights_licence": manifest.openness.weights_freedom.value,
        "components": manifest.openness.to_json(),
        "source": None
        if manifest.source is None
        else {
            "repository": manifest.source.repository,
            "revision": manifest.source.revision,
            "file": manifest.source.file,
        },
        "chat_template": manifest.chat_template is not None,
        "lora_targets": list(manifest.lora_targets),
        "files": {file.name: file.size_bytes for file in manifest.files},
        "directory": str(package.directory),
    }


def used(last_used_unix_s: float) -> str:
    """When a model was used last, to the minute."""
    if not last_used_unix_s:
        return "never"
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(last_used_unix_s))


def _components(openness: OpennessRecord) -> list[str]:
    """One line for each component that a class counts, and one for what none does."""
    lines = []
    for mof_class, components in REQUIRED:
        lines.append(f"  class {mof_class} asks for")
        lines += [_component(openness, component) for component in components]
    counted = {component for _, components in REQUIRED for component in components}
    lines.append("  recorded, not counted")
    return lines + [_component(openness, component) for component in Component if component not in counted]


def _component(openness: OpennessRecord, component: Component) -> str:
    record = openness.component(component)
    return f"    {component.replace('_', ' '):24}{_MARKS[record.state]:12}{record.licence or ''}"[:COLUMNS].rstrip()


def _shape(manifest: Manifest) -> list[str]:
    size = manifest.dimensions
    parts = [f"{size.layers} layers", f"width {size.hidden}"]
    if size.heads:
        parts.append(f"{size.heads} heads ({size.kv_heads} for keys)")
    template = "with" if manifest.chat_template is not None else "without"
    total = sum(file.size_bytes for file in manifest.files)
    return [
        *_field("family", f"{size.family}, {', '.join(parts)}"),
        *_field("text", f"{size.vocabulary} tokens, context {size.context}, {template} chat template"),
        *_field("stored as", f"{manifest.quantisation.scheme}, {readable_size(total)}"),
    ]


def _field(label: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        COLUMNS,
        initial_indent=f"{label:{_LABEL}}",
        subsequent_indent=" " * _LABEL,
        break_long_words=True,
        break_on_hyphens=False,
    )
