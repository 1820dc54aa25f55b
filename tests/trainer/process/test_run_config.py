"""Which attempt a rank belongs to: the RunConfig's, or a later one whose Job a queue has started again."""

import pytest

from distill_api.constants import Env
from distill_api.errors import Permanent
from distill_api.pod.run import Directories, RunConfig
from distill_trainer.process.rank.files import read_run_config
from tests.support.models import job_spec

RUN = RunConfig(
    job="tiny", uid="u", attempt=2, nodes=1, rendezvous="127.0.0.1:1", spec=job_spec(), directories=Directories()
).model_dump_json(by_alias=True)


@pytest.mark.parametrize(("label", "attempt"), [(None, 2), ("", 2), ("2", 2), ("3", 3)])
def test_the_pods_label_says_which_attempt_it_is(label: str | None, attempt: int) -> None:
    given = {Env.RUN: RUN} | ({Env.ATTEMPT: label} if label is not None else {})
    assert read_run_config(given).attempt == attempt


@pytest.mark.parametrize("label", ["x", "0", "-1"])
def test_a_label_that_is_no_number_of_an_attempt_is_an_error(label: str) -> None:
    with pytest.raises(Permanent, match="attempt"):
        read_run_config({Env.RUN: RUN, Env.ATTEMPT: label})


@pytest.mark.parametrize(("label", "committed"), [(None, 0), ("", 0), ("0", 0), ("40", 40)])
def test_the_pods_label_says_what_is_committed(label: str | None, committed: int) -> None:
    given = {Env.RUN: RUN} | ({Env.COMMITTED_STEP: label} if label is not None else {})
    assert read_run_config(given).committed_step == committed


@pytest.mark.parametrize(("rendezvous", "address"), [("127.0.0.1:29400", "127.0.0.1"), ("tiny-a1-0.tiny-a1:29400", "")])
def test_only_ranks_that_meet_on_one_machine_serve_there_alone(rendezvous: str, address: str) -> None:
    run = read_run_config({Env.RUN: RUN}).model_copy(update={"rendezvous": rendezvous})
    assert run.local_address == address
