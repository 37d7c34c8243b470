"""What all tests share: a folder of their own for the state that runs share, and commands that find what users have."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

AS_INSTALLED = Path(__file__).with_name("as_installed")


@pytest.fixture(scope="session", autouse=True)
def _own_rate_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Paces that earlier runs on this machine have learnt are nothing to the tests, nor the other way round."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", os.fspath(tmp_path_factory.mktemp("runtime")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _commands_as_users_have_them() -> Iterator[None]:
    """Commands that tests start do without pandas, as users' do; it would take them a fifth of a second each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.fspath(AS_INSTALLED), prepend=os.pathsep)
        yield
