/* How a call is let in, and the memory and queues behind all of them. */

#pragma once
#include "state.h"

/* -- Entering a call --------------------------------------------------------------------------------------------- */

/* CONTEXT: needs a current one. UNSAFE: not during a capture. FREES: goes on when the device is lost. BARE: before cuInit. */
enum { CONTEXT = 1, UNSAFE = 2, FREES = 4, STACK = 8, BARE = 16 };

static void release(char *guard) { (void)guard; pthread_mutex_unlock(&lock); }

static long count_call(const char *name) {
    for (int i = 0; i < NAMES; i++) {
        if (!counts[i].name) counts[i].name = name;
        if (!strcmp(counts[i].name, name)) return ++counts[i].calls;
    }
    return 0;
}

static bool capture_is_disturbed(void) {
    bool found = false;
    for (stream *s = streams; s; s = s->next)
        if (s->capture && s->mode != RELAXED && (s->mode == GLOBAL || pthread_equal(s->capturer, pthread_self()))) {
            s->capture = INVALID;
            found = true;
        }
    capture_errors += found;
    return found;
}

static int enter(const char *name, int needs) {
    long call = count_call(name);
    for (int i = 0; i < RULES; i++)
        if (rules[i].code && !strcmp(rules[i].name, name) && call >= rules[i].from && call < rules[i].to)
            return rules[i].code;
    if (dead && !(needs & (FREES | BARE)) && !(needs & STACK && stack_survives)) return dead;
    if (!initialised && !(needs & BARE)) return NOT_INITIALIZED;
    if (needs & CONTEXT && (!depth || !stack[depth - 1] || !stack[depth - 1]->retains)) {
        context_errors++;
        return depth && stack[depth - 1] ? CONTEXT_IS_DESTROYED : INVALID_CONTEXT;
    }
    if (needs & UNSAFE && capture_is_disturbed()) return CAPTURE_UNSUPPORTED;
    return SUCCESS;
}

#define ENTER(name, needs) \
    pthread_mutex_lock(&lock); \
    char guard __attribute__((cleanup(release), unused)) = 0; \
    int refusal = enter(#name, needs); \
    if (refusal) return refusal

#define PUSH(list, item) ((item)->next = (list), (list) = (item))

static context *here(void) { return stack[depth - 1]; }

/* -- Memory ------------------------------------------------------------------------------------------------------ */

static block *block_around(const char *start, size_t size, int kinds) {
    for (block *b = blocks; b; b = b->next)
        if (b->kind & kinds && start >= b->start && start + size <= b->start + b->size) return b;
    return NULL;
}

static block *add_block(char *start, size_t size, enum block_kind kind) {
    block *b = calloc(1, sizeof *b);
    *b = (block){.start = start, .size = size, .kind = kind, .owner = here()};
    PUSH(blocks, b);
    return b;
}

/* Work that is queued on memory which goes away is dropped: to run it would spoil the process. */
static void drop_users(const block *b) {
    bool used = false;
    for (stream *s = streams; s; s = s->next)
        for (op *o = s->queue.first; o; o = o->next)
            for (int i = 0; i < o->range_count; i++)
                if (!o->dropped && o->ranges[i].start < b->start + b->size &&
                    b->start < o->ranges[i].start + o->ranges[i].size)
                    used = o->dropped = true;
    freed_in_use += used && !dead;
}

static void remove_block(block *gone, bool free_host) {
    for (block **at = &blocks; *at; at = &(*at)->next)
        if (*at == gone) {
            *at = gone->next;
            break;
        }
    if (gone->kind == DEVICE) memory_used -= gone->size;
    if (gone->kind == DEVICE || (gone->kind == ALLOCATED && free_host)) free(gone->start);
    free(gone);
}

static int free_block(char *start, int kinds, int unknown) {
    for (block *b = blocks; b; b = b->next)
        if (b->kind & kinds && b->start == start) {
            drop_users(b);
            remove_block(b, true);
            return dead;
        }
    bad_frees++;
    return dead ? dead : unknown;
}

/* -- Queues ------------------------------------------------------------------------------------------------------ */

static void append(ops *list, op *o) {
    if (!list->first) list->end = &list->first;
    o->next = NULL;
    *list->end = o;
    list->end = &o->next;
}

static void free_op(op *o) {
    free(o->staged);
    free(o);
}

static void clear(ops *list) {
    for (op *o = list->first, *next; o; o = next) {
        next = o->next;
        free_op(o);
    }
    list->first = NULL;
}

static void run(stream *s, long mark);

static void perform(op *o) {
    if (dead || o->dropped) return;
    if (o->kind == WAIT) {
        run(o->other, o->mark);
        return;
    }
    for (int i = 0; i < o->range_count; i++)
        if (!block_around(o->ranges[i].start, o->ranges[i].size, o->ranges[i].kind)) {
            dead = ILLEGAL_ADDRESS;
            return;
        }
    if (o->kind == COPY) memcpy(o->target, o->source, o->size);
    if (o->kind == FILL) memset(o->target, o->fill, o->size);
    if (o->kind == CALL) {
        pthread_mutex_unlock(&lock);
        o->function(o->argument);
        pthread_mutex_lock(&lock);
    }
}

/* Runs a stream until `mark` of its operations are done. The lock is held, and given away meanwhile. */
static void run(stream *s, long mark) {
    while (s->done < mark) {
        if (s->busy) {
            if (pthread_equal(s->runner, pthread_self())) return; /* A host function waits for its own stream. */
            pthread_cond_wait(&changed, &lock);
            continue;
        }
        op *o = s->queue.first;
        if (!o) return; /* Cleared by a reset. */
        s->queue.first = o->next;
        s->busy = true;
        s->runner = pthread_self();
        perform(o);
        free_op(o);
        s->busy = false;
        s->done++;
        pthread_cond_broadcast(&changed);
    }
}

static void run_all(const context *owner, bool blocking_only) {
    for (stream *s = streams; s; s = s->next)
        if (s->owner == owner && (s->blocking || !blocking_only)) run(s, s->queued);
}

static stream *new_stream(context *owner, bool blocking) {
    stream *s = calloc(1, sizeof *s);
    s->owner = owner;
    s->blocking = blocking;
    PUSH(streams, s);
    return s;
}

/* The stream of a handle; the legacy stream is one that runs what it gets at once, behind all blocking streams. */
static int find_stream(void *handle, stream **found) {
    if (handle == (void *)2) return NOT_SUPPORTED;
    if (!handle || handle == (void *)1) {
        for (stream *s = streams; s; s = s->next)
            if (s->owner == here() && s->capture && s->blocking) {
                s->capture = INVALID;
                capture_errors++;
                return CAPTURE_IMPLICIT;
            }
        if (!here()->legacy) {
            here()->legacy = new_stream(here(), true);
            here()->legacy->gone = true; /* Nobody has to destroy it. */
        }
        *found = here()->legacy;
        return SUCCESS;
    }
    for (stream *s = streams; s; s = s->next)
        if (s == handle && !s->gone && s->owner == here()) {
            *found = s;
            return SUCCESS;
        }
    return INVALID_HANDLE;
}

static int enqueue(stream *s, op *o) {
    if (s->capture == INVALID) {
        free_op(o);
        return CAPTURE_INVALIDATED;
    }
    if (s->capture) {
        append(&s->captured, o);
        return SUCCESS;
    }
    append(&s->queue, o);
    s->queued++;
    if (s == here()->legacy) {
        run_all(here(), true);
        return dead;
    }
    return SUCCESS;
}

static op *new_op(enum op_kind kind) {
    op *o = calloc(1, sizeof *o);
    o->kind = kind;
    return o;
}

static void uses(op *o, const void *start, size_t size, enum block_kind kind) {
    o->ranges[o->range_count++] = (range){(char *)start, size, kind};
}

static int enqueue_copies(const ops *work, stream *s) {
    for (op *o = work->first; o; o = o->next) {
        op *copy = malloc(sizeof *copy);
        *copy = *o;
        int code = enqueue(s, copy);
        if (code) return code;
    }
    return SUCCESS;
}

/* `into`, `from`: what the two ends have to be. Ordinary memory is copied the way CUDA does it, which is correct and slow. */
static int copy(char *target, char *source, size_t size, void *handle, int into, int from) {
    stream *s;
    int code = find_stream(handle, &s);
    if (code || !size) return code;
    bool in = from == PINNED && !block_around(source, size, PINNED);
    bool out = into == PINNED && !block_around(target, size, PINNED);
    if (in || out) {
        unpinned_copies++;
        if (s->capture) {
            s->capture = INVALID;
            return CAPTURE_UNSUPPORTED;
        }
    }
    op *o = new_op(COPY);
    o->target = target, o->source = source, o->size = size;
    if (in) {
        o->source = o->staged = malloc(size);
        memcpy(o->staged, source, size);
    } else
        uses(o, source, size, from);
    if (!out) uses(o, target, size, into);
    code = enqueue(s, o);
    if (!code && out) run(s, s->queued);
    return code ? code : dead;
}

static int fill(char *target, int value, size_t size, void *handle) {
    stream *s;
    int code = find_stream(handle, &s);
    if (code || !size) return code;
    op *o = new_op(FILL);
    o->target = target, o->fill = value, o->size = size;
    uses(o, target, size, DEVICE);
    return enqueue(s, o);
}

/* What a context takes with it when it goes. On a device that works, somebody forgot to free it. */
static void abandon(const context *owner) {
    for (block *b = blocks, *next; b; b = next) {
        next = b->next;
        if (b->owner == owner) abandoned += !dead, drop_users(b), remove_block(b, false);
    }
    for (stream *s = streams; s; s = s->next)
        if (s->owner == owner) {
            if (!s->gone) abandoned += !dead, s->gone = true;
            s->capture = NONE;
            clear(&s->captured);
            clear(&s->queue);
            if (!s->busy) s->done = s->queued;
        }
    for (event *e = events; e; e = e->next)
        if (e->owner == owner && !e->gone) abandoned += !dead, e->gone = true;
    for (graph *g = graphs; g; g = g->next)
        if (g->owner == owner && !g->gone) abandoned += !dead, g->gone = true, clear(&g->work);
}
