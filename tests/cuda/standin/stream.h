/* The driver: streams, events, capture, graphs. */

#pragma once
#include "queue.h"

int cuStreamCreate(stream **made, unsigned flags) {
    ENTER(cuStreamCreate, CONTEXT);
    *made = new_stream(here(), !(flags & 1));
    return SUCCESS;
}

int cuStreamCreateWithPriority(stream **made, unsigned flags, int priority) { return cuStreamCreate(made, flags); }

/* Returns at once, as CUDA's does: what is queued still runs, for whoever waits for the context or an event. */
int cuStreamDestroy_v2(void *handle) {
    ENTER(cuStreamDestroy, CONTEXT | FREES);
    stream *s;
    if (!handle || find_stream(handle, &s)) return dead ? dead : INVALID_HANDLE;
    s->gone = true;
    s->capture = NONE;
    clear(&s->captured);
    return dead;
}

int cuStreamSynchronize(void *handle) {
    ENTER(cuStreamSynchronize, CONTEXT | UNSAFE);
    stream *s;
    int code = find_stream(handle, &s);
    if (code) return code;
    run(s, s->queued);
    return dead;
}

int cuStreamQuery(void *handle) {
    ENTER(cuStreamQuery, CONTEXT | UNSAFE);
    stream *s;
    int code = find_stream(handle, &s);
    return code ? code : s->done < s->queued ? NOT_READY : SUCCESS;
}

static event *find_event(void *handle) {
    for (event *e = events; e; e = e->next)
        if (e == handle && !e->gone) return e;
    return NULL;
}

int cuEventCreate(event **made, unsigned flags) {
    ENTER(cuEventCreate, CONTEXT);
    *made = calloc(1, sizeof **made);
    (*made)->owner = here();
    PUSH(events, *made);
    return SUCCESS;
}

int cuEventDestroy_v2(void *handle) {
    ENTER(cuEventDestroy, CONTEXT | FREES);
    event *e = find_event(handle);
    if (!e) return dead ? dead : INVALID_HANDLE;
    e->gone = true;
    return dead;
}

int cuEventRecord(void *handle, void *stream_handle) {
    ENTER(cuEventRecord, CONTEXT);
    stream *s;
    event *e = find_event(handle);
    int code = find_stream(stream_handle, &s);
    if (code) return code;
    if (!e || e->owner != s->owner) return INVALID_HANDLE;
    if (s->capture == INVALID) return CAPTURE_INVALIDATED;
    e->stream = s;
    e->mark = s->queued;
    e->captured = s->capture == ACTIVE;
    return SUCCESS;
}

int cuEventSynchronize(void *handle) {
    ENTER(cuEventSynchronize, CONTEXT | UNSAFE);
    event *e = find_event(handle);
    if (!e) return INVALID_HANDLE;
    if (e->captured) return CAPTURED_EVENT;
    if (e->stream) run(e->stream, e->mark);
    return dead;
}

int cuEventQuery(void *handle) {
    ENTER(cuEventQuery, CONTEXT | UNSAFE);
    event *e = find_event(handle);
    if (!e) return INVALID_HANDLE;
    if (e->captured) return CAPTURED_EVENT;
    return e->stream && e->stream->done < e->mark ? NOT_READY : SUCCESS;
}

int cuStreamWaitEvent(void *handle, void *event_handle, unsigned flags) {
    ENTER(cuStreamWaitEvent, CONTEXT);
    stream *s;
    event *e = find_event(event_handle);
    int code = find_stream(handle, &s);
    if (code) return code;
    if (!e) return INVALID_HANDLE;
    if (!e->stream || (e->captured && e->stream == s)) return SUCCESS;
    if (s->capture || e->captured) { /* CUDA would fork the capture; nobody here needs that. */
        if (s->capture) s->capture = INVALID;
        if (e->captured) e->stream->capture = INVALID;
        return CAPTURE_ISOLATION;
    }
    op *o = new_op(WAIT);
    o->other = e->stream;
    o->mark = e->mark;
    return enqueue(s, o);
}

int cuEventElapsedTime_v2(float *milliseconds, void *first, void *last) { return *milliseconds = 0, SUCCESS; }
int cuEventElapsedTime(float *milliseconds, void *first, void *last) { return *milliseconds = 0, SUCCESS; }

int cuLaunchHostFunc(void *handle, host_function function, void *argument) {
    ENTER(cuLaunchHostFunc, CONTEXT);
    stream *s;
    int code = find_stream(handle, &s);
    if (code) return code;
    op *o = new_op(CALL);
    o->function = function, o->argument = argument;
    return enqueue(s, o);
}

/* -- Capture and graphs ------------------------------------------------------------------------------------------ */

int cuStreamBeginCapture_v2(void *handle, enum mode mode) {
    ENTER(cuStreamBeginCapture, CONTEXT);
    stream *s;
    if (!handle) return CAPTURE_UNSUPPORTED;
    int code = find_stream(handle, &s);
    if (code) return code;
    if (s->capture || s == here()->legacy) return ILLEGAL_STATE;
    s->capture = ACTIVE;
    s->mode = mode;
    s->capturer = pthread_self();
    return SUCCESS;
}

int cuStreamEndCapture(void *handle, graph **made) {
    ENTER(cuStreamEndCapture, CONTEXT);
    stream *s;
    int code = find_stream(handle, &s);
    if (made) *made = NULL;
    if (code) return code;
    if (!s->capture) return ILLEGAL_STATE;
    if (s->mode != RELAXED && !pthread_equal(s->capturer, pthread_self())) return CAPTURE_WRONG_THREAD;
    bool valid = s->capture == ACTIVE;
    s->capture = NONE;
    if (!valid) {
        clear(&s->captured);
        return CAPTURE_INVALIDATED;
    }
    graph *g = calloc(1, sizeof *g);
    g->work.first = s->captured.first;
    s->captured.first = NULL;
    PUSH(graphs, g);
    *made = g;
    return SUCCESS;
}

int cuStreamIsCapturing(void *handle, int *status) {
    ENTER(cuStreamIsCapturing, CONTEXT);
    stream *s;
    int code = find_stream(handle, &s);
    *status = code ? 0 : s->capture;
    return code;
}

static graph *find_graph(void *handle, bool executable) {
    for (graph *g = graphs; g; g = g->next)
        if (g == handle && !g->gone && g->executable == executable) return g;
    return NULL;
}

int cuGraphInstantiateWithFlags(graph **made, void *handle, unsigned long long flags) {
    ENTER(cuGraphInstantiate, CONTEXT);
    graph *from = find_graph(handle, false);
    if (!from) return INVALID_VALUE;
    graph *g = calloc(1, sizeof *g);
    g->executable = true;
    g->owner = here();
    for (op *o = from->work.first; o; o = o->next) {
        op *copied = malloc(sizeof *copied);
        *copied = *o;
        append(&g->work, copied);
    }
    PUSH(graphs, g);
    *made = g;
    return SUCCESS;
}

int cuGraphLaunch(void *handle, void *stream_handle) {
    ENTER(cuGraphLaunch, CONTEXT);
    stream *s;
    graph *g = find_graph(handle, true);
    int code = find_stream(stream_handle, &s);
    if (code) return code;
    return g ? enqueue_copies(&g->work, s) : INVALID_VALUE;
}

static int destroy_graph(void *handle, bool executable) {
    graph *g = find_graph(handle, executable);
    if (!g) return dead ? dead : INVALID_VALUE;
    g->gone = true;
    clear(&g->work);
    return dead;
}

int cuGraphDestroy(void *handle) {
    ENTER(cuGraphDestroy, FREES);
    return destroy_graph(handle, false);
}

int cuGraphExecDestroy(void *handle) {
    ENTER(cuGraphExecDestroy, FREES);
    return destroy_graph(handle, true);
}
