"""The operator's settings, which it reads from its environment."""

import subprocess
import sys

import pytest

from distill_api.constants import TRAINER_USER
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
        "FORCED_POD_DELETION": "never",
    }
    settings = Settings.from_environment(environment)
    assert (settings.namespaces, settings.log_level) == (("a", "b"), "DEBUG")
    assert (settings.poll, settings.workers, settings.forced_pod_deletion) == (0.5, 2, False)


def test_network_peers_are_read_as_json() -> None:
    environment = {
        "DEFAULT_TRAINER_IMAGE": "trainer:1",
        "METRICS_PEERS": '[{"podSelector": {}}]',
        "TRAINER_EGRESS": "[]",
    }
    settings = Settings.from_environment(environment)
    assert (settings.metrics_peers, settings.trainer_egress) == (({"podSelector": {}},), ())


@pytest.mark.parametrize(("value", "user"), [("1000", 1000), ("none", None), ("", TRAINER_USER)])
def test_the_trainers_user_may_be_left_to_the_platform(value: str, user: int | None) -> None:
    settings = Settings.from_environment({"DEFAULT_TRAINER_IMAGE": "trainer:1", "TRAINER_USER": value})
    assert settings.trainer_user == user


def test_a_lease_needs_a_namespace_and_an_identity() -> None:
    environment = {"DEFAULT_TRAINER_IMAGE": "trainer:1", "LEASE_NAME": "operator", "POD_NAME": "operator-1"}
    with pytest.raises(SettingsError, match="LEASE_NAME is set, but not LEASE_NAMESPACE"):
        Settings.from_environment(environment)
    settings = Settings.from_environment({**environment, "LEASE_NAMESPACE": "system"})
    assert (settings.lease_name, settings.lease_namespace, settings.identity) == ("operator", "system", "operator-1")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LOG_LEVEL", "LOUD"),
        ("LOG_FORMAT", "xml"),
        ("TRAINER_LOG_FORMAT", "xml"),
        ("WORKERS", "0"),
        ("CLAIM_WAIT_SECONDS", "soon"),
        ("TRAINER_USER", "0"),
        ("TRAINER_USER", "root"),
        ("FORCED_POD_DELETION", "sometimes"),
        ("METRICS_PEERS", "prometheus"),
        ("METRICS_PEERS", '{"podSelector": {}}'),
        ("TRAINER_EGRESS", "[{}]"),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        Settings.from_environment({"DEFAULT_TRAINER_IMAGE": "trainer:1", name: value})


def test_a_wrong_environment_ends_the_process_with_one_line() -> None:
    done = subprocess.run([sys.executable, "-m", "distill_operator"], env={}, capture_output=True, text=True)
    assert done.returncode == 78
    assert done.stderr == "distill-operator: DEFAULT_TRAINER_IMAGE is not set; give the image of the training pods\n"
