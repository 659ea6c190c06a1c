"""TheAnimeScripter's `span-openvino`, from a checkout of it in the environment variable VIDSR_PEERS_TAS.

Usage: theanimescripter.py MODEL.onnx IN OUT FRAMES END PRESET CRF as-is|patched

as-is: it asks ONNX Runtime for the OpenVINO device "AUTO:GPU,CPU", and goes on without OpenVINO where there is no such
GPU. patched: the device is "CPU", in BF16 where the processor has it; nothing else is changed, and its files are not.
The time it reports is that of the whole run, loading included.
"""

import json
import os
import runpy
import sys
import time
from pathlib import Path

import onnxruntime

model, source, target, frames, end, preset, crf, how = sys.argv[1:]
checkout = Path(os.environ["VIDSR_PEERS_TAS"])
if how == "patched":
    usual = onnxruntime.InferenceSession
    bf16 = "avx512_bf16" in Path("/proc/cpuinfo").read_text()
    settings = json.dumps({"CPU": {"INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32"}})
    device = ("OpenVINOExecutionProvider", {"device_type": "CPU", "load_config": settings})
    onnxruntime.InferenceSession = lambda path, **_: usual(path, providers=[device])

sys.path.insert(0, str(checkout))
sys.argv = ["main.py", "--input", source, "--output", target, "--outpoint", end, "--upscale", "--upscale_factor", "2"]
sys.argv += ["--upscale_method", "span-openvino", "--custom_model", model, "--half", "False"]
sys.argv += ["--custom_encoder", f"-c:v libx264 -preset {preset} -crf {crf} -pix_fmt yuv420p"]
begin = time.perf_counter()
runpy.run_path(str(checkout / "main.py"), run_name="__main__")
print(json.dumps({"frames": int(frames), "seconds": time.perf_counter() - begin}))
