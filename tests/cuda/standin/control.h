/* What the tests see of the driver, and do to it. */

#pragma once
#include "queue.h"

/* Work of a kernel: calls `function(argument)` in stream order. starts, sizes: device memory that it uses. */
int standin_call(void *handle, host_function function, void *argument, char **starts, const size_t *sizes, int count) {
    ENTER(standin_call, CONTEXT);
    stream *s;
    int code = find_stream(handle, &s);
    if (code) return code;
    if (count > RANGES) return INVALID_VALUE;
    op *o = new_op(CALL);
    o->function = function, o->argument = argument;
    for (int i = 0; i < count; i++) uses(o, starts[i], sizes[i], DEVICE);
    return enqueue(s, o);
}

/* Calls `from` to `to` (exclusive), counted from now, of a function answer `code`. */
int standin_fail(const char *name, long from, long to, int code) {
    pthread_mutex_lock(&lock);
    long before = 0;
    for (int i = 0; i < NAMES && counts[i].name; i++)
        if (!strcmp(counts[i].name, name)) before = counts[i].calls;
    int i = 0;
    while (i < RULES && rules[i].code) i++;
    if (i < RULES) {
        snprintf(rules[i].name, sizeof rules[i].name, "%s", name);
        rules[i].from = before + from, rules[i].to = before + to, rules[i].code = code;
    }
    pthread_mutex_unlock(&lock);
    return i < RULES;
}

long standin_calls(const char *name) {
    long calls = 0;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < NAMES && counts[i].name; i++)
        if (!strcmp(counts[i].name, name)) calls = counts[i].calls;
    pthread_mutex_unlock(&lock);
    return calls;
}

void standin_lose(int code, int stack_keeps_working) {
    pthread_mutex_lock(&lock);
    dead = code;
    stack_survives = stack_keeps_working;
    pthread_mutex_unlock(&lock);
}

void standin_limit(size_t bytes) {
    pthread_mutex_lock(&lock);
    memory_limit = bytes > memory_used ? bytes : memory_used;
    pthread_mutex_unlock(&lock);
}

void standin_devices(int count) {
    pthread_mutex_lock(&lock);
    device_count = count < DEVICES ? count : DEVICES;
    pthread_mutex_unlock(&lock);
}

/* device blocks, pinned blocks, streams, events, graphs, executable graphs, retains, pushed, queued operations */
void standin_live(long *live) {
    pthread_mutex_lock(&lock);
    memset(live, 0, 9 * sizeof *live);
    for (block *b = blocks; b; b = b->next) live[b->kind == DEVICE ? 0 : 1]++;
    for (stream *s = streams; s; s = s->next) {
        live[2] += !s->gone;
        live[8] += s->queued - s->done;
    }
    for (event *e = events; e; e = e->next) live[3] += !e->gone;
    for (graph *g = graphs; g; g = g->next) live[g->executable ? 5 : 4] += !g->gone;
    for (int i = 0; i < DEVICES; i++) live[6] += contexts[i].retains;
    live[7] = pushed;
    pthread_mutex_unlock(&lock);
}

void standin_faults(long *faults) {
    pthread_mutex_lock(&lock);
    long all[] = {context_errors, unpinned_copies, freed_in_use, bad_frees, abandoned, capture_errors};
    memcpy(faults, all, sizeof all);
    pthread_mutex_unlock(&lock);
}

void standin_reset(void) {
    pthread_mutex_lock(&lock);
    dead = 1; /* Nothing is a fault of anybody while it is cleared away. */
    for (int i = 0; i < DEVICES; i++) {
        abandon(&contexts[i]);
        contexts[i].retains = 0;
    }
    for (graph *g = graphs; g; g = g->next)
        if (!g->gone) g->gone = true, clear(&g->work);
    memset(rules, 0, sizeof rules);
    memset(counts, 0, sizeof counts);
    dead = 0, stack_survives = false, depth = 0, pushed = 0, device_count = 2;
    memory_limit = (size_t)16 << 30;
    context_errors = unpinned_copies = freed_in_use = bad_frees = abandoned = capture_errors = 0;
    pthread_mutex_unlock(&lock);
}
