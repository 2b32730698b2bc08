"""The words that the commands of `litevit bench` take. No libraries here: `--help` waits for nothing."""

from typing import Literal

Dtype = Literal["fp32", "bf16", "fp16"]
# int8: products of an engine's file; int8-bf16: and what is float in it in bfloat16, OpenVINO's default where it can.
ModelDtype = Literal["fp32", "bf16", "fp16", "int8", "int8-bf16"]
Mode = Literal["eager", "compiled", "onnxruntime", "openvino"]
Engine = Literal["torch", "compiled", "onnxruntime", "openvino"]
Clock = Literal["wall", "cpu"]
Way = Literal["eager", "compiled", "frozen", "optimized", "without", "openvino"]
WAYS: tuple[Way, ...] = ("eager", "compiled", "frozen", "optimized", "without", "openvino")
