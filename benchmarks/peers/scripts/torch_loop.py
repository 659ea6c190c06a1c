"""What everybody writes first: one loop, RGB on the host, torch.

Usage: torch_loop.py MODEL IN OUT FRAMES END PRESET CRF contiguous|strided|bf16

contiguous: FP32, the picture as torchvision's ToTensor makes it. strided: it stays the permuted view of [H, W, 3],
which torch happens to run faster. bf16: BF16 and channels last, the best that torch does.
"""

import json
import sys
import time

import av
import numpy as np
import torch

from vidsr import models
from vidsr.networks import span

path, source, target, frames, _, preset, crf, how = sys.argv[1:]
model = models.load(path)
network = span.build(model.state(), model.metadata)
dtype = torch.bfloat16 if how == "bf16" else torch.float32
network = network.to(dtype, memory_format=torch.channels_last if how == "bf16" else torch.preserve_format)

opened, output = av.open(source), av.open(target, "w")
video = opened.streams.video[0]
stream = output.add_stream("libx264", rate=video.average_rate, options={"crf": crf, "preset": preset})
stream.width, stream.height, stream.pix_fmt = 2 * video.width, 2 * video.height, "yuv420p"
begin, count = time.perf_counter(), 0
with torch.inference_mode():
    for frame in opened.decode(video=0):
        if count == int(frames):
            break
        image = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1)[None].to(dtype) / 255
        image = image.contiguous() if how == "contiguous" else image
        large = (network(image)[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        output.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(large), format="rgb24")))
        count += 1
output.mux(stream.encode(None))
output.close()
print(json.dumps({"frames": count, "seconds": time.perf_counter() - begin}))
