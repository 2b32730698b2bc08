"""What a machine does to a command, in one line: no memory, a process that was killed."""

import re

AGAIN = "A training run goes on from its last checkpoint with the same command and --run.dir"
PEERS = (  # gloo, NCCL and PyTorch's store, of a process that is gone
    "closed by peer",
    "reset by peer",
    "gloo",
    "NCCL",
    "Broken pipe",
    "Connection refused",
    "wait timeout",
    "recvValue failed",
    "sendBytes failed",
)


def explained(error: BaseException) -> str | None:
    """The line; None: it is no fault of the machine's."""
    from litevit.devices import out_of_memory

    text = str(error)
    if worker := re.search(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (.*)", text):
        how = worker[2].split(". ")[0].rstrip(".")
        return (
            f"A process that reads images ({worker[1].strip()}) {how}: mostly the system, for want of memory. Use "
            f"fewer workers (--run.workers, --workers; 0 reads in this process). {AGAIN}"
        )
    if out_of_memory(error):
        said = text.strip().splitlines()[0][:200] if text.strip() else "no more of it"
        return (
            f"Out of memory ({said}). Take a smaller batch or smaller images, fewer workers, or a machine or a limit "
            f"with more. {AGAIN}"
        )
    if "can't start new thread" in text or "Resource temporarily unavailable" in text:
        return f"The system refuses another thread or process ({text[:100]}): use fewer workers, or raise its limits"
    if _of_the_group(error, text):
        said = text.strip().splitlines()[0][:200]
        return f"Another process of this run has ended or does not answer ({said}). {AGAIN}"
    return None


def _of_the_group(error: BaseException, text: str) -> bool:
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return False
    return isinstance(error, dist.DistError) or any(mark in text for mark in PEERS)
