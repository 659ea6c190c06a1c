"""VapourSynth with a plugin of vs-mlrt, YUV4MPEG2 into FFmpeg, as its users have it.

Usage: vapoursynth_y4m.py MODEL.onnx IN OUT FRAMES END PRESET CRF ov|ort
"""

import json
import subprocess
import sys
import time

import imageio_ffmpeg
import vapoursynth as vs

model, source, target, frames, _, preset, crf, plugin = sys.argv[1:]
core = vs.core
clip = core.lsmas.LWLibavSource(source, cache=0)[: int(frames)]
matrix = {"matrix_in_s": "709"} if clip.get_frame(0).props.get("_Matrix", 2) == 2 else {}
rgb = core.resize.Bicubic(clip, format=vs.RGBS, **matrix)
if plugin == "ov":
    # BF16 where the processor has it is what OpenVINO does when it is not told otherwise.
    large = core.ov.Model([rgb], network_path=model)
else:
    large = core.ort.Model([rgb], network_path=model, provider="")
planes = core.resize.Bicubic(large, format=vs.YUV420P8, matrix_s="709")
encode = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", "-i", "-", "-c:v", "libx264"]
begin = time.perf_counter()
with subprocess.Popen([*encode, "-preset", preset, "-crf", crf, target], stdin=subprocess.PIPE) as encoder:
    planes.output(encoder.stdin, y4m=True)
    encoder.stdin.close()
print(json.dumps({"frames": len(planes), "seconds": time.perf_counter() - begin}))
