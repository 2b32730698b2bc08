"""Processes, devices and precision: a thin layer over Hugging Face accelerate and FSDP2.

BatchNorm (deformable merging has it) is the one layer that sees how a batch is divided: under DDP every process
normalises with its own share, and the running statistics kept are those of process 0. `run.sync_batchnorm` makes the
statistics those of the whole batch, on CUDA. Models without BatchNorm (LVT) give the same result for any division.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from litevit.devices import find_device, gains_from_bfloat16
from litevit.engine.config import RunConfig

if TYPE_CHECKING:
    from accelerate import Accelerator

ACCELERATE_PRECISION = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


def with_precision(run: RunConfig) -> RunConfig:
    """The run with `precision` "auto" decided: bf16 on a device whose products are faster in it, else fp32."""
    if run.precision != "auto":
        return run
    return replace(run, precision="bf16" if gains_from_bfloat16(find_device(run.device)) else "fp32")


def create_accelerator(run: RunConfig) -> "Accelerator":
    """One process, or what torchrun / `accelerate launch` started."""
    try:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState
        from accelerate.utils import DistributedDataParallelKwargs
    except ImportError as error:
        raise ImportError("Training needs accelerate: pip install 'litevit[train]'") from error
    find_device(run.device)
    if run.precision == "fp16" and (run.device == "cpu" or not torch.cuda.is_available()):
        raise ValueError("run.precision fp16 needs a CUDA device. On the CPU choose bf16 or fp32.")
    _join_restarted_group(run)
    # accelerate keeps the first Accelerator's precision for the life of the process; a second run may want another.
    AcceleratorState._reset_state()
    precision = with_precision(run).precision
    accelerator = Accelerator(
        mixed_precision=ACCELERATE_PRECISION[precision],
        cpu=run.device == "cpu",
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=run.find_unused_parameters)],
    )
    if (first := from_main_process(precision, accelerator)) != precision:
        raise ValueError(
            f"run.precision auto: this machine would train in {precision}, that of the first process in {first}. "
            "All processes need the same: give --run.precision bf16 or fp32."
        )
    return accelerator


def _join_restarted_group(run: RunConfig) -> None:
    """After a restart by torchrun, meets the other processes under a name of this try.

    torchrun keeps its store over restarts, with the addresses of the dead processes in it: a process that comes up
    before its peers would connect to those.
    """
    restart = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    if restart == 0 or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" or dist.is_initialized():
        return
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), world, is_master=False)
    on_cuda = torch.cuda.is_available() and run.device != "cpu"
    if on_cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group(
        "nccl" if on_cuda else "gloo", store=dist.PrefixStore(f"restart-{restart}", store), rank=rank, world_size=world
    )


def _try_to_compile(device: torch.device) -> None:
    """Compiles one line: without a compiler the run would end at its first step, in a traceback and with a folder."""
    try:
        torch.compile(lambda x: (x + 1).sum())(torch.ones(8, device=device))
    except Exception as error:  # Dynamo's and Inductor's have no public name
        said = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ValueError(
            f"run.compile: torch.compile does not work here ({said}). Install a C++ compiler (CXX, else g++), or set "
            "--run.compile False."
        ) from error


def prepare_model(model: nn.Module, run: RunConfig, accelerator: "Accelerator") -> nn.Module:
    """Applies the run's switches in place and returns what the training step calls (the model, or DDP around it)."""
    if run.grad_checkpointing:
        switch = model if hasattr(model, "set_grad_checkpointing") else getattr(model, "backbone", None)  # dense models
        if not hasattr(switch, "set_grad_checkpointing"):
            raise ValueError(
                f"{type(model).__name__} has no set_grad_checkpointing; set --run.grad_checkpointing False"
            )
        switch.set_grad_checkpointing(True)  # type: ignore[operator, union-attr]
    if run.sync_batchnorm:
        if accelerator.device.type != "cuda":
            raise ValueError("run.sync_batchnorm needs CUDA; PyTorch has no synchronised BatchNorm for the CPU.")
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    model.to(accelerator.device)
    if run.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if run.compile:
        _try_to_compile(accelerator.device)
        model.compile()
    if run.fsdp:
        shard_parameters(model)
        return model
    return accelerator.prepare_model(model)


def shard_parameters(model: nn.Module) -> None:
    """FSDP2: every block is gathered and freed on its own; what is outside of blocks belongs to the whole model.

    A block is a child of a ModuleList or Sequential that has parts and no such list inside: a stage is none, because
    its own `forward` is never called.
    """
    from torch.distributed.fsdp import fully_shard

    if not dist.is_initialized():
        raise ValueError("run.fsdp shards over processes: start with torchrun or accelerate launch.")
    containers = (nn.ModuleList, nn.Sequential)
    for container in [module for module in model.modules() if isinstance(module, containers)]:
        for block in container:
            holds_list = any(isinstance(module, containers) for module in block.modules())
            if len(list(block.children())) > 1 and not holds_list:
                fully_shard(block)
    fully_shard(model)


def model_state(model: nn.Module, *, fsdp: bool) -> dict[str, Tensor]:
    """The whole state dict on every process (FSDP: on process 0's CPU)."""
    if not fsdp:
        return model.state_dict()
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    return get_model_state_dict(  # type: ignore[return-value]
        model, options=StateDictOptions(full_state_dict=True, cpu_offload=True)
    )


def optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer, *, fsdp: bool) -> dict[str, Any]:
    if not fsdp:
        return optimizer.state_dict()
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return get_optimizer_state_dict(model, optimizer, options=options)


def restore(model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any], *, fsdp: bool) -> None:
    """Puts a checkpoint's `model` and `optimizer` entries back."""
    restore_model(model, state["model"], fsdp=fsdp)
    if not fsdp:
        optimizer.load_state_dict(state["optimizer"])
        return
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_optimizer_state_dict

    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_optimizer_state_dict(model, optimizer, state["optimizer"], options=options)


def restore_model(model: nn.Module, state: dict[str, Any], *, fsdp: bool) -> None:
    if not fsdp:
        model.load_state_dict(state)
        return
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    for part in _sharded(model):  # what a forward pass has left whole takes no shards
        part.reshard()
    set_model_state_dict(model, state, options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True))


def _sharded(model: nn.Module) -> list[Any]:
    """What `shard_parameters` has divided."""
    from torch.distributed.fsdp import FSDPModule

    return [module for module in model.modules() if isinstance(module, FSDPModule)]


@contextlib.contextmanager
def gathered(model: nn.Module, *, fsdp: bool) -> Iterator[None]:
    """Holds a sharded model whole on every process, so that one of them can call it alone; frees it afterwards."""
    if not fsdp:
        yield
        return
    parts = _sharded(model)
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.reshard()
            part.set_reshard_after_forward(part is not model, recurse=False)  # as `fully_shard` has it


def share_buffers(model: nn.Module) -> None:
    """Gives every process the running statistics of process 0, so that all evaluate the model that is saved."""
    if dist.is_initialized():
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def any_process(flag: bool, accelerator: "Accelerator") -> bool:
    """Whether the flag is set anywhere; every process has to call it."""
    if accelerator.num_processes == 1:
        return flag
    total = accelerator.reduce(torch.tensor(float(flag), device=accelerator.device), "sum")
    return bool(total > 0)


def from_main_process(value: Any, accelerator: "Accelerator") -> Any:
    """Process 0's value of a small picklable object, on every process."""
    if accelerator.num_processes == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]
