"""The best short script: three threads, OpenVINO, uint8 in and out. Usage: script.py MODEL.onnx IN OUT FRAMES"""

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

core = ov.Core()
source = av.open(sys.argv[2])
video = source.streams.video[0]
video.thread_type = "AUTO"
frames = int(sys.argv[4])

graph = core.read_model(sys.argv[1])
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
compiled = core.compile_model(
    graph, "CPU", {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32"}
)

decoded: queue.Queue = queue.Queue(4)
upscaled: queue.Queue = queue.Queue(4)


def decode() -> None:
    for index, frame in enumerate(source.decode(video=0)):
        if index == frames:
            break
        decoded.put(frame.to_ndarray(format="rgb24")[None])
    decoded.put(None)


def encode() -> None:
    with av.open(sys.argv[3], "w") as output:
        stream = output.add_stream("libx264", rate=video.average_rate, options={"crf": "18", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = 2 * video.width, 2 * video.height, "yuv420p"
        stream.thread_type = "FRAME"
        while (image := upscaled.get()) is not None:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(image[0], format="rgb24")))
        output.mux(stream.encode(None))


begin = time.perf_counter()
threads = [threading.Thread(target=decode), threading.Thread(target=encode)]
for thread in threads:
    thread.start()
request = compiled.create_infer_request()
while (image := decoded.get()) is not None:
    upscaled.put(next(iter(request.infer(image).values())).copy())
upscaled.put(None)
for thread in threads:
    thread.join()
print(json.dumps({"frames": frames, "seconds": time.perf_counter() - begin}))
