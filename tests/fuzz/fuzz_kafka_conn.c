/* A connection on a fake broker: byte 0 holds flags, byte 1 seeds how bytes are cut, when operations complete and
 * answers are read. The rest is what the peer sends: as it is, or (flag 1) as frames, each with a two-byte length
 * before it, so that a fuzzer need not find the length out. At the end nothing may be left. */
#include "../unit/kafka_client.h"
#include "../unit/kafka_fake_broker.h"
#include "base/rng.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool in_turns; /* flag 64: the owner sets limits, and others wait for memory */

static void feed(client *c, cnk_rng *rng, const uint8_t *data, size_t size) {
    for (size_t done = 0, stuck = 0; done < size && stuck < 50;) {
        fake.wait = cnk_rng_chance(rng, 1, 3);
        size_t n = 1 + (size_t)cnk_rng_below(rng, cnk_rng_chance(rng, 1, 2) ? 16 : 5000);
        if (n > size - done) n = size - done;
        n = client_feed(c, data + done, n, 0);
        stuck = n ? 0 : stuck + 1;
        done += n;
        while (fake.waiting_count > 0 && cnk_rng_chance(rng, 1, 2))
            fake_complete((size_t)cnk_rng_below(rng, fake.waiting_count));
        if (cnk_rng_chance(rng, 1, 2)) client_drain(c, 1 + (size_t)cnk_rng_below(rng, 3000));
        if (c->in_len > CLIENT_IN_MAX / 2) c->in_len = 0;
        if (cnk_rng_chance(rng, 1, 4)) {
            fake_log *log = &fake.logs[0][cnk_rng_below(rng, 3)];
            log->empty = !log->empty;
            log->high_watermark++;
            fake_news();
        }
        if (cnk_rng_chance(rng, 1, 4)) fake_watches_off();
        if (cnk_rng_chance(rng, 1, 20)) fake_advance((uint64_t)cnk_rng_below(rng, 20) * 1000000000u);
        if (in_turns) cnk_kafka_conn_turn(c->conn);
        if (in_turns && cnk_rng_chance(rng, 1, 8)) {
            fake.reads_wait = !fake.reads_wait;
            cnk_kafka_crowded(c->conn->kafka);
        }
        if (cnk_kafka_conn_wants(c->conn) & CNK_CONN_CLOSE) return;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    cnk_kafka_options options = CNK_KAFKA_OPTIONS_INIT;
    cnk_kafka *kafka;
    client c;
    cnk_rng rng;
    if (size < 2) return 0;
    fake_reset();
    cnk_rng_seed(&rng, data[1]);
    fake.data_needed = (data[0] & 2) != 0;
    in_turns = (data[0] & 64) != 0;
    fake.watch_late = (data[0] & 32) != 0;
    options.chunk_bytes = data[0] & 4 ? 4096 : 65536;
    options.output_bytes_max = data[0] & 8 ? 500 : 1u << 20;
    options.pipelined_max = data[0] & 16 ? 2 : 256;
    options.frame_bytes_max = 1u << 20;
    options.produce_bytes_max = options.control_bytes_max = 1u << 20;
    if (cnk_kafka_new((cnk_shard *)&fake, &options, &kafka)) abort();
    client_open(&c, kafka);
    if (data[0] & 1) {
        for (size_t at = 2; at + 2 <= size;) {
            size_t len = cnk_load_be16(data + at);
            at += 2;
            if (len > size - at) len = size - at;
            uint8_t head[4];
            cnk_store_be32(head, (uint32_t)len);
            feed(&c, &rng, head, sizeof head);
            feed(&c, &rng, data + at, len);
            at += len;
        }
    } else {
        feed(&c, &rng, data + 2, size - 2);
    }
    client_close(&c);
    while (fake.waiting_count > 0) fake_complete(0);
    if (cnk_kafka_conn_count(kafka) != 0 || cnk_kafka_reserved_bytes(kafka) != 0 || fake.fetches_open != 0) abort();
    if (!cnk_kafka_quiesce(kafka)) {
        fake_watches_off();
        if (!cnk_kafka_quiesce(kafka)) abort();
    }
    cnk_kafka_free(kafka);
    return 0;
}
