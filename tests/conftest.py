"""Settings of the whole suite: hypothesis profiles and the number of threads.

`python3 run.py test` is for every change: no test marked slow, few random cases a property, within 3 minutes on two
cores. `HYPOTHESIS_PROFILE=ci python3 run.py test -m ""` runs everything; CI does.
"""

import os

import torch
from hypothesis import HealthCheck, settings

EXAMPLES = {"quick": 5, "default": 10, "ci": 25, "nightly": 2000}  # random cases of each property, by profile

for profile, count in EXAMPLES.items():
    settings.register_profile(
        profile,
        max_examples=count,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
        derandomize=profile == "ci",  # CI judges the change, and measures coverage: the same cases every time
    )
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

torch.set_num_threads(1)  # the suite shares the machine; two spinning threads lose more than they gain
