"""The operator's settings, which it reads from its environment."""

import subprocess
import sys

import pytest

from distill_operator.types.settings import Settings, SettingsError


def test_settings_have_defaults_but_for_the_image() -> None:
    settings = Settings.from_environment({"DEFAULT_TRAINER_IMAGE": "trainer:1", "WATCH_NAMESPACES": ""})
    assert settings == Settings(trainer_image="trainer:1")
    with pytest.raises(SettingsError, match="DEFAULT_TRAINER_IMAGE is not set"):
        Settings.from_environment({})


def test_settings_are_read_from_the_environment() -> None:
    environment = {
        "DEFAULT_TRAINER_IMAGE": "trainer:1",
        "WATCH_NAMESPACES": "a, b",
        "LOG_LEVEL": "debug",
        "PROGRESS_POLL_SECONDS": "0.5",
        "WORKERS": "2",
    }
    settings = Settings.from_environment(environment)
    assert (settings.namespaces, settings.log_level) == (("a", "b"), "DEBUG")
    assert (settings.poll, settings.workers) == (0.5, 2)


@pytest.mark.parametrize(("name", "value"), [("LOG_LEVEL", "LOUD"), ("WORKERS", "0"), ("CLAIM_WAIT_SECONDS", "soon")])
def test_a_wrong_setting_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        Settings.from_environment({"DEFAULT_TRAINER_IMAGE": "trainer:1", name: value})


def test_a_wrong_environment_ends_the_process_with_one_line() -> None:
    done = subprocess.run([sys.executable, "-m", "distill_operator"], env={}, capture_output=True, text=True)
    assert done.returncode == 78
    assert done.stderr == "distill-operator: DEFAULT_TRAINER_IMAGE is not set; give the image of the training pods\n"
