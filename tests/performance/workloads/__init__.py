"""What is measured; a new workload is a class with the members of `Workload` and a line in sizes.py."""

from tests.performance.workloads.sizes import full_size, quick_size
from tests.performance.workloads.workload import Workload

__all__ = ["Workload", "full_size", "quick_size"]
