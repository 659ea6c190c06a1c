"""What everybody writes first: one loop, RGB on the host, torch in FP32.

Usage: naive.py MODEL.onnx IN OUT FRAMES [strided]

The picture becomes a contiguous [1, 3, H, W], as torchvision's ToTensor makes it. With `strided` it stays the permuted
view of [H, W, 3], which torch happens to run faster.
"""

import json
import sys
import time

import av
import numpy as np
import torch

from vidsr import models
from vidsr.networks import span

model = models.load(sys.argv[1])
network = span.build(model.state(), model.metadata)
source = av.open(sys.argv[2])
output = av.open(sys.argv[3], "w")
video = source.streams.video[0]
stream = output.add_stream("libx264", rate=video.average_rate, options={"crf": "18", "preset": "veryfast"})
stream.width, stream.height = 2 * video.width, 2 * video.height
stream.pix_fmt = "yuv420p"
begin, frames = time.perf_counter(), int(sys.argv[4])
with torch.inference_mode():
    for index, frame in enumerate(source.decode(video=0)):
        if index == frames:
            break
        image = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1)[None].float() / 255
        image = image if sys.argv[5:] == ["strided"] else image.contiguous()
        large = (network(image)[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        output.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(large), format="rgb24")))
output.mux(stream.encode(None))
output.close()
print(json.dumps({"frames": frames, "seconds": time.perf_counter() - begin}))
