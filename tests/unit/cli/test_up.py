"""`autoloader up`: whom it listens to."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from app.cli.up import _document, _environs, _plan, _told, refuse_strangers
from app.config import Settings
from app.domain.access import NewToken, Role, digest_of, new_token, new_token_id
from app.domain.errors import TokensRequiredError
from app.wiring.stores import open_access_tokens
from tests.support.command import ROOT


def test_other_machines_are_listened_to_once_tokens_say_who_may_ask(tmp_path: Path) -> None:
    settings = Settings(autoloader_home=tmp_path)
    refuse_strangers("127.0.0.1", settings)
    with pytest.raises(TokensRequiredError, match="tokens create"):
        refuse_strangers("0.0.0.0", settings)  # noqa: S104 - that is what is asked
    # Looking makes no database.
    assert list(tmp_path.iterdir()) == []
    with open_access_tokens(settings, on_new=lambda _: None) as tokens:
        added = tokens.add_token(NewToken(new_token_id(), "ops", "default", Role.ADMIN), digest_of(new_token()))
    refuse_strangers("0.0.0.0", settings)  # noqa: S104
    # Nor does the last one's end open the door again.
    with open_access_tokens(settings) as tokens:
        tokens.revoke_token(added.id)
    refuse_strangers("0.0.0.0", settings)  # noqa: S104


def test_the_password_of_a_prefect_is_parted_from_its_address(tmp_path: Path) -> None:
    settings = Settings(autoloader_home=tmp_path, prefect_api_url="http://me:p%40ss-of-it@127.0.0.1:9/api")
    plan = _plan(settings, "127.0.0.1", (None, None), free_ports=True, verbose=False)
    assert plan.prefect_url == "http://127.0.0.1:9/api"
    for environ in _environs(plan, settings):
        told = (environ["PREFECT_API_URL"], environ["PREFECT_API_AUTH_STRING"])
        assert told == ("http://127.0.0.1:9/api", "me:p@ss-of-it")
    assert "ss-of-it" not in repr(plan)
    # One that is no address is not understood, and not shown either.
    broken = Settings(autoloader_home=tmp_path, prefect_api_url="http://me:p/@ss-of-it@127.0.0.1:9/api")
    plan = _plan(broken, "127.0.0.1", (None, None), free_ports=True, verbose=False)
    assert "ss-of-it" not in f"{_document(plan, broken)} {_told(plan, broken)}"


CLOSED = """
import os, sys
from app.cli.streams import fill_closed
fill_closed()
looks = '''
import os
found = [os.readlink(f"/proc/self/fd/{n}") for n in (0, 2)]
os.write(int(os.environ["TOLD"]), " ".join(found).encode())
'''
os.execve(sys.executable, [sys.executable, "-c", looks], dict(os.environ))
"""


def test_nothing_takes_the_place_of_a_stream_that_is_closed() -> None:
    """What the command hands on to the head would: its lock is the next file that it opens."""
    ours, theirs = os.pipe()
    os.set_inheritable(theirs, True)  # noqa: FBT003 - the system's function
    program = shlex.join([sys.executable, "-P", "-c", CLOSED])
    subprocess.run(
        ["/bin/sh", "-c", f"{program} <&- 2>&-"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TOLD": str(theirs)},
        pass_fds=(theirs,),
        check=True,
        timeout=60,
    )
    os.close(theirs)
    with os.fdopen(ours) as told:
        assert told.read() == "/dev/null /dev/null"
