"""`coordinator backup`, `restore` and `migrate`: work in the coordinator's directory, not over the network."""

from __future__ import annotations

from pathlib import Path

import click

from coordinator.cli.command import coordinator, data_directory, json_option
from coordinator.home import Home
from nightshift.host.console import emit
from nightshift.host.wording import number_of
from nightshift.protocol.errors import UsageError

_DIRECTORY = click.Path(path_type=Path, file_okay=False)
_FILE = click.Path(path_type=Path, dir_okay=False)
_keys_option = click.option("--keys", type=_FILE, help="Archive of the private keys; needs --passphrase-file.")
_passphrase_option = click.option(
    "--passphrase-file", type=_FILE, help="Its first line opens and closes the archive; mode 0600."
)


@click.command(
    short_help="Copy rows and objects while it serves.",
    epilog="Example: coordinator backup /backup/monday --keys /media/stick/keys.sealed --passphrase-file phrase.txt",
)
@click.argument("directory", type=_DIRECTORY)
@_keys_option
@_passphrase_option
@json_option
@click.pass_context
def backup(
    context: click.Context, directory: Path, keys: Path | None, passphrase_file: Path | None, as_json: bool
) -> None:
    """Copy rows and objects to a new DIRECTORY while the service goes on.

    The private keys are not in it. They hardly ever change; --keys writes them, sealed, to a file of their own.
    """
    from coordinator.backups.key_archive import read_passphrase, seal_keys
    from coordinator.backups.taking import take

    _require_both(keys, passphrase_file)
    with coordinator(context) as deployment:
        sealed = 0
        if keys is not None and passphrase_file is not None:
            sealed = seal_keys(deployment.home.keys_directory, keys.absolute(), read_passphrase(passphrase_file))
        manifest = take(deployment, directory.absolute())
    objects = number_of(manifest.objects, "object")
    size = f"{number_of(manifest.rows, 'row')}, {objects} of {manifest.objects_bytes / 1e6:.1f} MB in {directory}"
    with_keys = f"; {number_of(sealed, 'key file')} in {keys}" if keys else "; without the private keys (see --keys)"
    emit(
        {**manifest.model_dump(), "directory": str(directory), "key_files": sealed},
        as_json=as_json,
        text=size + with_keys,
    )


@click.command(
    short_help="Bring a backup back, into an empty place.",
    epilog="Example: coordinator --data /srv/new restore /backup/monday --keys keys.sealed --passphrase-file p",
)
@click.argument("directory", type=_DIRECTORY)
@_keys_option
@_passphrase_option
@click.option(
    "--nothing-happened-since",
    is_flag=True,
    help="The old coordinator was stopped before this backup and never ran again: open rounds go on.",
)
@json_option
@click.pass_context
def restore(
    context: click.Context,
    directory: Path,
    *,
    keys: Path | None,
    passphrase_file: Path | None,
    nothing_happened_since: bool,
    as_json: bool,
) -> None:
    """Bring the backup in DIRECTORY back, into a database that holds nothing.

    --data names a directory with the keys of that coordinator, or with nothing where --keys brings them. Nothing is
    ever overwritten. Put a coordinator.toml there first to use another database or object store than before.
    """
    from coordinator.backups.key_archive import open_keys, read_passphrase
    from coordinator.backups.restoring import restore as bring_back

    _require_both(keys, passphrase_file)
    home = Home(data_directory(context))
    if keys is not None and passphrase_file is not None:
        open_keys(keys, home.keys_directory, read_passphrase(passphrase_file))
    done = bring_back(directory.absolute(), home, nothing_happened_since=nothing_happened_since)
    made = done.manifest
    restored = f"{number_of(made.rows, 'row')} and {number_of(made.objects, 'object')}"
    text = f"restored {restored}; the log has {number_of(made.log_size, 'entry', 'entries')}"
    if not nothing_happened_since:
        text += (
            f"\nended without a sum: {number_of(done.ended, 'open cohort')}; dropped: "
            f"{number_of(done.prekeys_dropped, 'unspent prekey')}; starting again from the newest adapter: "
            f"{', '.join(done.tasks) or 'no task'}.\n"
            "Devices that saw more of the log than the backup has refuse this coordinator (exit 14) until they join "
            "again: edge-client leave, then edge-client join TOKEN; the service's log names those that call"
        )
    emit(
        {**made.model_dump(), "ended": done.ended, "prekeys_dropped": done.prekeys_dropped, "tasks": done.tasks},
        as_json=as_json,
        text=f"{text}\nnext: coordinator --data {home.directory} serve",
    )


@click.command(epilog="Example: coordinator backup /backup/monday && coordinator migrate")
@json_option
@click.pass_context
def migrate(context: click.Context, as_json: bool) -> None:
    """Bring the database's schema to the version of this build. Make a backup first, and stop every `serve`."""
    from coordinator.deployment import bring_up_to_date

    before = bring_up_to_date(Home(data_directory(context)))
    text = (
        f"the schema has version {before.newest} already"
        if before.current
        else f"the schema was {before.version or 'not there'} and is {before.newest} now"
    )
    emit({"before": before.version, "version": before.newest}, as_json=as_json, text=text)


def _require_both(keys: Path | None, passphrase_file: Path | None) -> None:
    if (keys is None) != (passphrase_file is None):
        raise UsageError("--keys and --passphrase-file belong together")


GROUPS = (backup, restore, migrate)
