"""`gmmas train` with settings of the stream that do not fit: told early, before long work."""

import re

import pytest

from gmmas_jax.cli import main
from tests.cli.cohorts import write_cohort, write_config


@pytest.fixture(name="train", scope="module")
def _train(tmp_path_factory):
    """Returns the function that trains on one cohort, in a folder, with options."""
    folder = tmp_path_factory.mktemp("cohort")
    cohort, config = write_cohort(folder, cases=2), write_config(folder)

    def train(workdir, *options):
        words = ("train", "--config", str(config), "--cohort", str(cohort), "--processes", "none")
        return main([*words, "--workdir", str(workdir), *options])

    return train


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("data.views=2", "data.views is 2; expected 1, as many views .* objective of tiny"),
        ("data.views=3", "data.views is 3; expected 1 or 2"),
        ("data.cutmix=2", "data.cutmix is 2.0; expected a share"),
        ("data.cutmix_feather=-1", "data.cutmix_feather is -1; expected voxels"),
        ("data.sequence_drop=all", "data.sequence_drop is 'all'; expected one of"),
    ],
)
def test_settings_that_do_not_fit_are_told_before_the_store_is_built(
    train, tmp_path, capsys, option, told
):
    assert train(tmp_path / "run", f"--config.{option}") == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert re.search(told, error), error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("data.balance=mgmt",), "data.balance names mgmt, but no case to train on has this label"),
        (("data.cutmix=0.5",), "no two cases with a tumour mask differ in histology or grade"),
    ],
)
def test_what_the_cases_do_not_have_is_told_before_the_network_is_compiled(
    train, tmp_path, capsys, options, told
):
    assert train(tmp_path, *(f"--config.{option}" for option in options)) == 2
    assert told in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
