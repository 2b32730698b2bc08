"""Which model goes into which format, and how far the file is from the model: the table of docs/deploy.md.

    python benchmarks/export_tiers.py --models lvt litv2_s --formats pt2 onnx openvino --out tiers.json

Every export proves itself (litevit/deploy/verify.py); a row is written as soon as it is known, and rows that the file
has are not made again. Weights are random: the proof is about the function, not about what was learned. Heads of
detectors are spread out, so that they find something.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

import litevit
from litevit.deploy.exporter import ExportError
from litevit.deploy.formats import formats
from litevit.files import write_json


@torch.no_grad()
def lively(model: nn.Module) -> nn.Module:
    random = torch.Generator().manual_seed(3)
    for name, parameter in model.named_parameters():
        spread = 1 / parameter[0].numel() ** 0.5 if parameter.dim() > 1 else 0.0
        if "cls_logits" in name or "objectness" in name:
            noise = 6 * spread * torch.randn(parameter.shape, generator=random)
            parameter.copy_(noise if spread else torch.full_like(parameter, -1.0))
    return model.eval()


def row_of(model: str, format: str, folder: Path) -> dict:
    torch.manual_seed(0)
    started = time.perf_counter()
    try:
        network = lively(litevit.create_model(model))
        report = litevit.export(network, folder / f"x{formats()[format].suffix}", format=format)
    except ExportError as error:
        row = {"tier": "wrong", "why": str(error)}
    except (ValueError, ImportError) as error:
        row = {"tier": "refused", "why": str(error)}
    else:
        worst = report.worst
        assert worst is not None
        row = {"tier": "proven", "checks": len(report.checks), "worst": worst.worst, "tolerance": worst.tolerance,
               "output": worst.output, "mb": report.bytes / 1e6, "environment": report.environment}  # fmt: skip
    return {"model": model, "format": format, "seconds": round(time.perf_counter() - started), **row}


def markdown(rows: list[dict]) -> str:
    names = list(dict.fromkeys(row["format"] for row in rows))
    table = {(row["model"], row["format"]): row for row in rows}
    lines = ["| model | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for model in dict.fromkeys(row["model"] for row in rows):
        lines.append(f"| {model} | " + " | ".join(_cell(table.get((model, name))) for name in names) + " |")
    return "\n".join(lines)


def _cell(row: dict | None) -> str:
    if row is None:
        return "not tried"
    if row["tier"] != "proven":
        return f"{row['tier']}: {row['why']}"
    return f"proven, {row['worst']:.1g} of {row['tolerance']:.1g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", required=True)
    parser.add_argument("--formats", nargs="+", default=["pt2", "onnx", "openvino"])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    rows = json.loads(options.out.read_text()) if options.out.exists() else []
    for model in options.models:
        for format in options.formats:
            if any((row["model"], row["format"]) == (model, format) for row in rows):
                continue
            with tempfile.TemporaryDirectory() as folder:
                rows.append(row_of(model, format, Path(folder)))
            write_json(options.out, rows, indent=1)
            print(model, format, _cell(rows[-1]), f"{rows[-1]['seconds']} s", flush=True)
    print(markdown(rows))


if __name__ == "__main__":
    main()
