"""A page in the browser that plays a video upscaled, live; and one that shows a job at work.

Only the server needs aiohttp, installed with the extra `preview`.
"""
