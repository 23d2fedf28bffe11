"""`coordinator keys`: the keys that sign which releases devices serve."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coordinator import audit
from coordinator.cli.command import coordinator, json_option
from coordinator.cli.tables import table
from nightshift.host.clock import now_unix_s
from nightshift.host.console import emit
from nightshift.host.files import write_atomic
from nightshift.protocol.errors import UsageError
from nightshift.protocol.times import rfc3339

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from coordinator.releases.documents import KeySet
    from coordinator.releases.root_ceremony import NextRoot

_FILE = click.Path(path_type=Path, dir_okay=False)
_ROLES = click.Choice(["root", "adapters", "packages", "snapshot", "timestamp"])


@click.group(short_help="The keys that sign what devices serve.")
def keys() -> None:
    """The keys that sign which releases devices serve: the root's in safes, four of this machine."""


@keys.command("show", short_help="Show which keys count and what ends when.", epilog="Example: coordinator keys show")
@json_option
@click.pass_context
def show(context: click.Context, as_json: bool) -> None:
    """Show which keys count, which are here, and when the metadata of each role ends."""
    from coordinator.releases.release_keys import ReleaseKeys
    from coordinator.releases.repository import current_keys

    with coordinator(context) as deployment, deployment.database.reading() as session:
        key_files, chosen = ReleaseKeys(deployment.home.keys_directory), current_keys(session)
        rows = [
            {"role": role, "key": key_id, "here": bool(key_files.signers(role, [key_id]))}
            for role, key_id in _keys_of(chosen)
        ]
        roles = _roles(session)
    lines = [
        table([{**row, "key": row["key"][:16]} for row in rows], ("role", "key", "here"), empty=""),
        "",
        table(roles, ("role", "version", "ends", "days"), empty=""),
        f"the root takes {chosen.threshold} of {len(chosen.root)} signatures",
    ]
    if any(row["here"] for row in rows if row["role"] == "root"):
        lines.append(
            "keys of the root are in the keys directory; take them offline: coordinator keys offline DIRECTORY"
        )
    emit({"keys": rows, "roles": roles, "threshold": chosen.threshold}, as_json=as_json, text="\n".join(lines))


@keys.command(
    "offline",
    short_help="Move the root's keys to another directory.",
    epilog="Example: coordinator keys offline /media/stick-1",
)
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@click.pass_context
def offline(context: click.Context, directory: Path, yes: bool, as_json: bool) -> None:
    """Move the root's keys to DIRECTORY, best on a medium that is then put away.

    Give each file a place of its own: whoever has as many as the root's
    threshold decides what devices serve. Everything goes on without them until
    a key must be replaced or the root ends.
    """
    from coordinator.releases import root_ceremony
    from coordinator.releases.release_keys import ReleaseKeys

    with coordinator(context) as deployment:
        if not yes:
            click.confirm(f"move the root's keys to {directory} and remove them here?", abort=True, err=True)
        key_files = ReleaseKeys(deployment.home.keys_directory)
        with deployment.database.transaction() as session:
            moved = root_ceremony.take_offline(session, key_files, directory.absolute())
            audit.record(session, "keys offline", str(directory), files=[path.name for path in moved])
    text = f"{len(moved)} keys of the root are in {directory} and nowhere else; give each a safe place of its own"
    emit({"files": [str(path) for path in moved]}, as_json=as_json, text=text)


@keys.command(
    "make",
    short_help="Make a key for the root, where it will stay.",
    epilog="Example: coordinator keys make root-4.pem",
)
@click.argument("file", type=_FILE)
@json_option
def make(file: Path, as_json: bool) -> None:
    """Make a key in FILE and its public half in FILE.pub; needs no coordinator on this machine.

    The public half goes to `coordinator keys rotate root --add FILE.pub`.
    """
    from coordinator.releases.root_ceremony import make_root_key

    public = file.with_name(f"{file.name}.pub")
    key = make_root_key(file, public)
    text = f"key {key.keyid[:16]} is in {file}; where the coordinator is: coordinator keys rotate root --add {public}"
    emit({"key": key.keyid, "file": str(file), "public": str(public)}, as_json=as_json, text=text)


@keys.command("rotate", short_help="Make new keys for roles.", epilog="Example: coordinator keys rotate timestamp")
@click.argument("roles", type=_ROLES, nargs=-1, metavar="[ROLE]...")
@click.option("--to", "file", type=_FILE, help="Write the next root here, for signatures of keys in safes.")
@click.option("--add", "added", type=_FILE, multiple=True, help="Public key that the root gets in addition.")
@click.option("--drop", "dropped", multiple=True, metavar="KEY", help="Key that the root loses; its first digits.")
@click.option("--threshold", type=click.IntRange(min=1), help="How many signatures a root takes from now on.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@click.pass_context
def rotate(
    context: click.Context,
    roles: tuple[str, ...],
    *,
    file: Path | None,
    added: tuple[Path, ...],
    dropped: tuple[str, ...],
    threshold: int | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Make new keys for the ROLEs and a root that names them; without a ROLE the root is only renewed.

    With enough of the root's keys here it is installed at once. Otherwise --to
    writes it to a file that collects signatures: coordinator keys sign-root.
    New keys for `root` replace those that are here; with --add and --drop the
    keys in safes are exchanged.
    """
    from coordinator.releases import root_ceremony
    from coordinator.releases.release_keys import ReleaseKeys, read_public_key
    from nightshift.protocol.targets import Role

    _require_new(file)
    chosen_roles = {Role(role) for role in roles}
    change = root_ceremony.RootChange([read_public_key(path) for path in added], dropped, threshold)
    with coordinator(context) as deployment:
        key_files = ReleaseKeys(deployment.home.keys_directory)
        with deployment.database.reading() as session:
            _require_way(root_ceremony.root_keys_here(session, key_files), _threshold(session), file)
        if not yes and file is None:
            what = f"new keys for {', '.join(sorted(chosen_roles))}" if chosen_roles else "a new root"
            click.confirm(f"install {what} now?", abort=True, err=True)
        with deployment.database.transaction() as session:
            made = root_ceremony.prepare(
                session, key_files, renewed=chosen_roles, change=change, now_unix_s=now_unix_s()
            )
            if file is None:
                root_ceremony.install_next(session, key_files, made, now_unix_s())
            record = _record(made)
            subject = " ".join(sorted(chosen_roles)) or "root"
            audit.record(session, "keys rotate", subject, **record, installed=file is None)
        if file is None:
            root_ceremony.forget_former(key_files, made.keys)
        else:
            write_atomic(file.absolute(), made.to_bytes(), mode=0o644)
    emit({**record, "installed": file is None, "file": file and str(file)}, as_json=as_json, text=_text(record, file))


@keys.command(
    "sign-root",
    short_help="Sign the next root with a key from a safe.",
    epilog="Example: coordinator keys sign-root --key root-1.pem next-root.json",
)
@click.option("--key", "key_file", type=_FILE, required=True, help="A key of the root, before or after the change.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.argument("file", type=_FILE)
@json_option
def sign_root(key_file: Path, file: Path, *, yes: bool, as_json: bool) -> None:
    """Add a key's signatures to the root in FILE; needs no coordinator on this machine.

    Read what is shown: whoever holds the keys that the root names decides what
    devices serve.
    """
    from coordinator.releases.release_keys import read_signer
    from coordinator.releases.root_ceremony import NextRoot

    made, signer = NextRoot.from_file(file), read_signer(key_file)
    if not yes:
        click.echo(_contents(made), err=True)
        click.confirm(
            f"sign root {made.root.signed.version} with key {signer.public_key.keyid[:16]}?", abort=True, err=True
        )
    made.sign(signer)
    write_atomic(file.absolute(), made.to_bytes(), mode=0o644)
    record = _record(made)
    emit({**record, "file": str(file)}, as_json=as_json, text=_text(record, file))


@keys.command(
    "install-root",
    short_help="Use a root that was signed.",
    epilog="Example: coordinator keys install-root next-root.json",
)
@click.argument("file", type=_FILE)
@json_option
@click.pass_context
def install_root(context: click.Context, file: Path, as_json: bool) -> None:
    """Take the signed root of FILE in the place of the present one, and the new keys with it.

    A running service signs with them from then on; devices follow at their next pass.
    """
    from coordinator.releases import root_ceremony
    from coordinator.releases.release_keys import ReleaseKeys

    made = root_ceremony.NextRoot.from_file(file)
    with coordinator(context) as deployment:
        key_files = ReleaseKeys(deployment.home.keys_directory)
        with deployment.database.transaction() as session:
            chosen = root_ceremony.install_next(session, key_files, made, now_unix_s())
            record = _record(made)
            audit.record(session, "keys install-root", str(record["version"]), **record)
        root_ceremony.forget_former(key_files, chosen)
    emit({**record, "installed": True, "file": str(file)}, as_json=as_json, text=_text(record, None))


def _require_way(here: int, needed: int, file: Path | None) -> None:
    if file is None and here < needed:
        raise UsageError(
            f"the root takes {needed} signatures and {here} of its keys are here; write the next root to a file with "
            "--to FILE, sign it where the keys are (coordinator keys sign-root), then: coordinator keys install-root"
        )


def _threshold(session: Session) -> int:
    from coordinator.releases.repository import current_keys

    return current_keys(session).threshold


def _roles(session: Session) -> list[dict[str, Any]]:
    from coordinator.releases.repository import newest_versions

    return [
        {
            "role": str(row.role),
            "version": row.version,
            "ends": rfc3339(row.expires_unix_s),
            "days": (row.expires_unix_s - now_unix_s()) // 86_400,
        }
        for row in newest_versions(session)
    ]


def _keys_of(chosen: KeySet) -> list[tuple[Any, str]]:
    from nightshift.protocol.targets import Role

    return [(Role.ROOT, key_id) for key_id in chosen.root_ids] + [
        (role, key.keyid) for role, key in chosen.online.items()
    ]


def _record(made: NextRoot) -> dict[str, Any]:
    before, own = made.missing()
    return {
        "version": made.root.signed.version,
        "ends": rfc3339(int(made.root.signed.expires.timestamp())),
        "threshold": made.keys.threshold,
        "root_keys": made.keys.root_ids,
        "online_keys": {str(role): key.keyid for role, key in made.keys.online.items()},
        "signatures_missing": max(before, own),
    }


def _contents(made: NextRoot) -> str:
    before = set(made.previous.signed.roles["root"].keyids)
    rows = [
        {"role": str(role), "key": key_id[:16], "new": key_id not in before if role == "root" else None}
        for role, key_id in _keys_of(made.keys)
    ]
    lines = [
        table(rows, ("role", "key", "new"), empty=""),
        f"a root takes {made.keys.threshold} signatures of the root's keys",
        *(f"the root loses key {key_id[:16]}" for key_id in sorted(before - set(made.keys.root_ids))),
    ]
    return "\n".join(lines)


def _text(record: dict[str, Any], file: Path | None) -> str:
    name = f"root {record['version']}"
    if file is None:
        return f"{name} is installed and lasts until {record['ends']}; devices follow at their next pass"
    if record["signatures_missing"]:
        return (
            f"{file} holds {name} and lacks {record['signatures_missing']} signatures; where a key is: "
            f"coordinator keys sign-root --key KEY {file}"
        )
    return f"{file} holds {name}, signed; where the coordinator is: coordinator keys install-root {file}"


def _require_new(file: Path | None) -> None:
    if file is not None and file.exists():
        raise UsageError(f"{file} exists; name a new file")


GROUPS = (keys,)
