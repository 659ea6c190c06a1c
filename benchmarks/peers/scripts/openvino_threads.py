"""The best short script: three threads, OpenVINO, uint8 in and out.

Usage: openvino_threads.py MODEL.onnx IN OUT FRAMES END PRESET CRF
"""

import json
import queue
import sys
import threading
import time

import av
import numpy as np
import openvino as ov
from openvino import Layout, Type
from openvino.preprocess import PrePostProcessor

model, source, target, frames, _, preset, crf = sys.argv[1:]
core = ov.Core()
opened = av.open(source)
video = opened.streams.video[0]
video.thread_type = "AUTO"

graph = core.read_model(model)
graph.reshape([1, 3, video.height, video.width])
steps = PrePostProcessor(graph)
steps.input().tensor().set_element_type(Type.u8).set_layout(Layout("NHWC"))
steps.input().model().set_layout(Layout("NCHW"))
steps.input().preprocess().convert_element_type(Type.f32).scale(255.0)
steps.output().model().set_layout(Layout("NCHW"))
steps.output().tensor().set_layout(Layout("NHWC"))
graph = steps.build()
result = graph.get_results()[0].input_value(0)
ops = ov.opset13
codes = ops.convert(ops.clamp(ops.round(ops.multiply(result, np.float32(255)), "half_to_even"), 0, 255), "u8")
graph = ov.Model([codes], graph.get_parameters())
bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32"}
compiled = core.compile_model(graph, "CPU", hints)

decoded: queue.Queue = queue.Queue(4)
upscaled: queue.Queue = queue.Queue(4)


def decode() -> None:
    for index, frame in enumerate(opened.decode(video=0)):
        if index == int(frames):
            break
        decoded.put(frame.to_ndarray(format="rgb24")[None])
    decoded.put(None)


def encode() -> None:
    with av.open(target, "w") as output:
        stream = output.add_stream("libx264", rate=video.average_rate, options={"crf": crf, "preset": preset})
        stream.width, stream.height, stream.pix_fmt = 2 * video.width, 2 * video.height, "yuv420p"
        stream.thread_type = "FRAME"
        while (image := upscaled.get()) is not None:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(image[0], format="rgb24")))
        output.mux(stream.encode(None))


begin, count = time.perf_counter(), 0
threads = [threading.Thread(target=decode), threading.Thread(target=encode)]
for thread in threads:
    thread.start()
request = compiled.create_infer_request()
while (image := decoded.get()) is not None:
    upscaled.put(next(iter(request.infer(image).values())).copy())
    count += 1
upscaled.put(None)
for thread in threads:
    thread.join()
print(json.dumps({"frames": count, "seconds": time.perf_counter() - begin}))
