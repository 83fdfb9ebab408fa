/* The limit: a C client on librabbitmq that does the same works.
 *
 *   cc -O2 -o limit limit.c -lrabbitmq
 *   limit WORK N WINDOW PREFETCH SIZE QUEUE HOST PORT USER PASSWORD VHOST
 *
 * publish  persistent, mandatory, confirmed, WINDOW in flight
 * consume  acks half a prefetch at once
 * serve    answers requests: each reply is confirmed before its request is acked; until SIGTERM
 * request  over the direct reply address, persistent, mandatory, confirmed, WINDOW in flight
 *
 * Prints one line of JSON, as the other peers do.
 */
#include <amqp.h>
#include <amqp_framing.h>
#include <amqp_tcp_socket.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define CHANNEL 1
#define REPLY_TO "amq.rabbitmq.reply-to"

static const char USUAL[] =
    "{\"user_id\": 123, \"text\": \"\\u041f\\u0440\\u0438\\u0432\\u0435\\u0442, \\u043c\\u0438\\u0440!\", "
    "\"items\": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]}";
static const char REPLY[] = "{\"ok\": true}";

static amqp_connection_state_t connection;
static amqp_bytes_t body, queue;
static long n;
static uint64_t window, prefetch;
static double began_wall, began_cpu;
static volatile sig_atomic_t ended;

static void die(const char *what) {
    fprintf(stderr, "limit: %s\n", what);
    exit(1);
}

static void check(const char *what) {
    if (amqp_get_rpc_reply(connection).reply_type != AMQP_RESPONSE_NORMAL) die(what);
}

static double wall(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static double cpu(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void start(void) {
    began_wall = wall();
    began_cpu = cpu();
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Not getrusage(2): what that tells begins with the memory of the process that forked this one. */
static long highest_memory(void) {
    char line[256];
    long kilobytes = 0;
    FILE *status = fopen("/proc/self/status", "r");
    while (status && fgets(line, sizeof line, status))
        if (sscanf(line, "VmHWM: %ld", &kilobytes) == 1) break;
    if (status) fclose(status);
    return kilobytes;
}

static void report(double *latencies) {
    double took = wall() - began_wall, used = cpu() - began_cpu;
    printf("{\"n\": %ld, \"rate\": %.1f, \"cpu_us\": %.3f, \"wall_us\": %.3f, \"rss_mb\": %.1f", n, n / took,
           used / n * 1e6, took / n * 1e6, highest_memory() / 1024.0);
    if (latencies) {
        qsort(latencies, n, sizeof(double), by_size);
        printf(", \"p50_us\": %.1f, \"p99_us\": %.1f", latencies[n / 2] * 1e6, latencies[(long)(n * .99)] * 1e6);
    }
    printf("}\n");
    fflush(stdout);
}

static void connect_to(char **argv) {
    connection = amqp_new_connection();
    amqp_socket_t *socket = amqp_tcp_socket_new(connection);
    if (amqp_socket_open(socket, argv[7], atoi(argv[8]))) die("cannot connect");
    if (amqp_login(connection, argv[11], 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, argv[9], argv[10]).reply_type !=
        AMQP_RESPONSE_NORMAL)
        die("login");
    int one = 1;
    setsockopt(amqp_get_sockfd(connection), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    amqp_channel_open(connection, CHANNEL);
    check("channel");
}

static void consume_from(amqp_bytes_t name, int no_ack) {
    amqp_basic_consume(connection, CHANNEL, name, amqp_empty_bytes, 0, no_ack, 0, amqp_empty_table);
    check("consume");
}

static void send_to(amqp_bytes_t name, int mandatory, amqp_basic_properties_t *properties, amqp_bytes_t text) {
    if (amqp_basic_publish(connection, CHANNEL, amqp_empty_bytes, name, mandatory, 0, properties, text))
        die("publish");
}

static amqp_basic_properties_t properties(void) {
    amqp_basic_properties_t p = {0};
    p._flags = AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_DELIVERY_MODE_FLAG;
    p.content_type = amqp_cstring_bytes("application/json");
    p.delivery_mode = 2;
    return p;
}

/* The next frame that is a method; 0 after a fifth of a second without one. */
static int next_method(amqp_frame_t *frame) {
    struct timeval patience = {0, 200000};
    amqp_maybe_release_buffers(connection);
    int status = amqp_simple_wait_frame_noblock(connection, frame, &patience);
    if (status == AMQP_STATUS_TIMEOUT) return 0;
    if (status != AMQP_STATUS_OK) die("connection lost");
    if (frame->frame_type != AMQP_FRAME_METHOD) return 0;
    if (frame->payload.method.id == AMQP_BASIC_RETURN_METHOD) die("a message was returned");
    if (frame->payload.method.id == AMQP_BASIC_NACK_METHOD) die("a message was refused");
    if (frame->payload.method.id == AMQP_CHANNEL_CLOSE_METHOD) die("the channel was closed");
    return 1;
}

static uint64_t confirmed_below; /* a confirm of several counts from here */

static uint64_t confirms(const amqp_basic_ack_t *ack) {
    uint64_t count = 1;
    if (ack->multiple) {
        count = ack->delivery_tag - confirmed_below;
        confirmed_below = ack->delivery_tag;
    } else {
        confirmed_below++;
    }
    return count;
}

static void publish(void) {
    double *latencies = malloc(n * sizeof(double));
    uint64_t sent = 0, done = 0;
    amqp_frame_t frame;
    amqp_confirm_select(connection, CHANNEL);
    check("confirm");
    start();
    while (done < (uint64_t)n) {
        while (sent < (uint64_t)n && sent - done < window) {
            char id[33];
            amqp_basic_properties_t p = properties();
            p._flags |= AMQP_BASIC_MESSAGE_ID_FLAG;
            snprintf(id, sizeof id, "%032lx", (unsigned long)sent);
            p.message_id = amqp_cstring_bytes(id);
            latencies[sent] = wall();
            send_to(queue, 1, &p, body);
            sent++;
        }
        if (next_method(&frame) && frame.payload.method.id == AMQP_BASIC_ACK_METHOD) {
            double now = wall();
            for (uint64_t k = confirms(frame.payload.method.decoded); k; k--, done++)
                latencies[done] = now - latencies[done];
        }
    }
    report(latencies);
}

static void consume(void) {
    uint64_t sum = 0, batch = prefetch > 1 ? prefetch / 2 : 1, unacked = 0;
    start();
    consume_from(queue, 0);
    for (long i = 0; i < n; i++) {
        amqp_envelope_t e;
        amqp_maybe_release_buffers(connection);
        if (amqp_consume_message(connection, &e, 0, 0).reply_type != AMQP_RESPONSE_NORMAL) die("delivery");
        sum += ((unsigned char *)e.message.body.bytes)[e.message.body.len / 2];
        if (++unacked >= batch || i == n - 1) {
            amqp_basic_ack(connection, CHANNEL, e.delivery_tag, 1);
            unacked = 0;
        }
        amqp_destroy_envelope(&e);
    }
    report(0);
    if (!sum) die("nothing was read");
    amqp_channel_close(connection, CHANNEL, AMQP_REPLY_SUCCESS);
}

static void on_signal(int number) {
    (void)number;
    ended = 1;
}

/* Reply and request have the same number: the nth delivery is answered by the nth publish. */
static void serve(void) {
    signal(SIGTERM, on_signal);
    amqp_confirm_select(connection, CHANNEL);
    check("confirm");
    consume_from(queue, 0);
    printf("READY\n");
    fflush(stdout);
    while (!ended) {
        amqp_frame_t frame;
        if (!next_method(&frame)) continue;
        if (frame.payload.method.id == AMQP_BASIC_ACK_METHOD) {
            amqp_basic_ack_t *ack = frame.payload.method.decoded;
            amqp_basic_ack(connection, CHANNEL, ack->delivery_tag, ack->multiple);
        } else if (frame.payload.method.id == AMQP_BASIC_DELIVER_METHOD) {
            amqp_message_t message;
            if (amqp_read_message(connection, CHANNEL, &message, 0).reply_type != AMQP_RESPONSE_NORMAL) die("read");
            amqp_basic_properties_t p = properties();
            p._flags |= AMQP_BASIC_CORRELATION_ID_FLAG;
            p.correlation_id = message.properties.correlation_id;
            send_to(message.properties.reply_to, 0, &p, amqp_cstring_bytes(REPLY));
            amqp_destroy_message(&message);
        }
    }
}

static void request(void) {
    double *latencies = malloc(n * sizeof(double));
    uint64_t sent = 0, done = 0, confirmed = 0;
    amqp_frame_t frame;
    amqp_confirm_select(connection, CHANNEL);
    check("confirm");
    consume_from(amqp_cstring_bytes(REPLY_TO), 1);
    start();
    while (done < (uint64_t)n || confirmed < (uint64_t)n) {
        while (sent < (uint64_t)n && sent - done < window) {
            char id[24];
            amqp_basic_properties_t p = properties();
            p._flags |= AMQP_BASIC_CORRELATION_ID_FLAG | AMQP_BASIC_REPLY_TO_FLAG;
            snprintf(id, sizeof id, "%lu", (unsigned long)sent);
            p.correlation_id = amqp_cstring_bytes(id);
            p.reply_to = amqp_cstring_bytes(REPLY_TO);
            latencies[sent] = wall();
            send_to(queue, 1, &p, body);
            sent++;
        }
        if (!next_method(&frame)) continue;
        if (frame.payload.method.id == AMQP_BASIC_ACK_METHOD) {
            confirmed += confirms(frame.payload.method.decoded);
        } else if (frame.payload.method.id == AMQP_BASIC_DELIVER_METHOD) {
            amqp_message_t message;
            char id[24] = {0};
            if (amqp_read_message(connection, CHANNEL, &message, 0).reply_type != AMQP_RESPONSE_NORMAL) die("read");
            amqp_bytes_t correlation = message.properties.correlation_id;
            memcpy(id, correlation.bytes, correlation.len < sizeof id ? correlation.len : sizeof id - 1);
            long k = atol(id);
            latencies[k] = wall() - latencies[k];
            done++;
            amqp_destroy_message(&message);
        }
    }
    report(latencies);
}

int main(int argc, char **argv) {
    if (argc != 12) die("usage: limit WORK N WINDOW PREFETCH SIZE QUEUE HOST PORT USER PASSWORD VHOST");
    long size = atol(argv[5]);
    n = atol(argv[2]);
    window = atol(argv[3]);
    prefetch = atol(argv[4]);
    queue = amqp_cstring_bytes(argv[6]);
    if (size) {
        body = amqp_bytes_malloc(size);
        memset(body.bytes, 'x', size);
        memcpy(body.bytes, "{\"text\": \"", 10);
        memcpy((char *)body.bytes + size - 2, "\"}", 2);
    } else {
        body = amqp_cstring_bytes(USUAL);
    }
    connect_to(argv);
    amqp_basic_qos(connection, CHANNEL, 0, prefetch, 0);
    check("qos");
    if (!strcmp(argv[1], "publish")) publish();
    else if (!strcmp(argv[1], "consume")) consume();
    else if (!strcmp(argv[1], "serve")) serve();
    else if (!strcmp(argv[1], "request")) request();
    else die("no such work");
    return 0;
}
