import random

import pytest
from kills import differing, kill_once, train


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_a_killed_training_resumes_to_the_weights_of_an_undisturbed_one(tmp_path, seed):
    file = tmp_path / "igd.pt"
    kill_once(file, random.Random(seed))
    resumed = train(file, resume=file.exists())
    assert differing(train(None), resumed) == []
