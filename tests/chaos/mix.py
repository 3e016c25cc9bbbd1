"""All faults of the campaign."""

from __future__ import annotations

from typing import Final

from tests.chaos import faults, process_faults, wire
from tests.chaos.faults import LOSE_REDIS

FAULTS: Final = (*faults.FAULTS, *wire.FAULTS, *process_faults.FAULTS)
BY_NAME: Final = {fault.name: fault for fault in (*FAULTS, LOSE_REDIS)}
