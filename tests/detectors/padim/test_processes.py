"""What processes tell each other, in a group of one."""

from collections.abc import Iterator

import pytest
import torch.distributed as dist

from detectors.padim.processes import Settings, agree, broadcast_int, run_all_or_raise, should_join
from detectors.padim.tree import Level


@pytest.fixture
def group() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_joining_is_asked_for_or_follows_the_group() -> None:
    assert should_join(True)
    assert not should_join(False)
    assert not should_join(None)


@pytest.mark.usefixtures("group")
def test_a_group_of_one() -> None:
    assert should_join(None)
    assert not should_join(False)
    assert broadcast_int(7) == 7
    own = Settings((3, 8, 8), [(4, 2, 2)], [Level(2, 2, 4)])
    assert agree(own) == own
    assert agree(None) is None
    with pytest.raises(ZeroDivisionError):
        run_all_or_raise([1, 0], lambda batch: print(1 / batch))
