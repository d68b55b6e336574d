/* The option table. One row for each option:
 *
 *     X(ID, section, "name", TYPE, "default", min, max, "choices or unit", FLAGS, "other names", "what it does")
 *
 * TYPE: BOOL, INT, BYTES (suffixes KB MB GB TB, decimal, and KiB MiB GiB TiB), MS (suffixes ms s m h d), PORT, TEXT,
 * CHOICE. min and max are inclusive; for TEXT they are lengths. FLAGS: 0, or NO_EFFECT, REFUSED, HIDDEN, SECRET, DYNAMIC.
 * Other names: `-x` is a short flag; a name in capitals is an environment variable, taken as it stands; all else is one
 * more dotted name, with its four spellings. conf.h explains the flags. */
#ifndef CNK_CONF_OPTIONS_H
#define CNK_CONF_OPTIONS_H

#define CNK_INT64_MAX INT64_C(9223372036854775807)
#define CNK_INT32_MAX INT64_C(2147483647)

#define CNK_CONF_OPTIONS(X)                                                                                           \
    /* the node */                                                                                                    \
    X(CONFIG, NODE, "config", TEXT, "", 0, 4095, "path", 0, "-c",                                                     \
      "The TOML file with options. Flags and environment variables are stronger than the file.")                      \
    X(DATA_DIR, NODE, "data.dir", TEXT, "./data", 1, 4000, "path", 0, "-d log.dirs log.dir",                          \
      "The directory that holds everything. Made where missing. One process at a time may use it.")                   \
    X(NODE_ID, NODE, "node.id", INT, "1", 0, CNK_INT32_MAX, "", 0, "broker.id",                                       \
      "The broker's id, as clients see it. A data directory keeps the id it was made with.")                          \
    X(LOG_LEVEL, NODE, "log.level", CHOICE, "info", 0, 0, "error|warn|info|debug|trace", 0, "-l log RUST_LOG",        \
      "Log lines of this weight and above are written to standard error.")                                            \
    X(LOG_FORMAT, NODE, "log.format", CHOICE, "text", 0, 0, "text|json", 0, "", "How log lines look.")                \
    X(SHARDS, NODE, "shards", INT, "1", 1, 64, "", 0, "",                                                             \
      "Threads that serve clients, each with its own partitions and connections. One is best on two processors; more "  \
      "help where it is busy all the time and others are idle. May change from start to start.")                         \
    X(JOBS, NODE, "jobs", CHOICE, "threads", 0, 0, "threads|inline", 0, "",                                           \
      "Who writes, syncs and reads files: threads of their own, or, inline, the threads that serve clients, which "     \
      "serve nobody meanwhile. For hosts that want no further threads.")                                              \
    X(STOP_TIMEOUT, NODE, "shutdown.timeout.ms", MS, "10000", 0, 600000, "", 0, "",                                   \
      "How long a stopping broker lets requests end before it closes their connections. What was acknowledged is "    \
      "durable in any case.")                                                                                         \
    X(DEBUG_LOSSY_DISK, NODE, "debug.lossy.disk", BOOL, "false", 0, 0, "", HIDDEN, "",                                \
      "For tests: writes stay in the process until they are synced, so that kill -9 loses what was not.")             \
    /* addresses */                                                                                                   \
    X(BIND_ADDR, NET, "bind.addr", TEXT, "0.0.0.0", 0, 63, "address", 0, "bind",                                      \
      "The address to listen on. Where unset, all, those of IPv6 too.")                                               \
    X(ADVERTISED_ADDR, NET, "advertised.addr", TEXT, "", 0, 255, "host[:port]", 0, "advertise",                       \
      "The address that clients are told to come to. Where unset, it is the one by which they came.")                 \
    X(KAFKA_PORT, NET, "kafka.port", PORT, "9092", 0, 65535, "", 0, "-p",                                             \
      "The port for Kafka clients; 0: the kernel picks one.")                                                         \
    X(HTTP_PORT, NET, "http.port", PORT, "6092", 0, 65535, "", 0, "unified.api.port",                                 \
      "The port for /health, /ready and /metrics; 0: the kernel picks one. Where the default is taken, the broker serves "  \
      "without.")                         \
    X(HTTP_ENABLE, NET, "http.enable", BOOL, "true", 0, 0, "", 0, "", "Whether to listen for HTTP at all.")           \
    X(METRICS_PORT, NET, "metrics.port", PORT, "", 0, 65535, "", 0, "",                                               \
      "One more port for /metrics. Unset: none.")                                                                     \
    X(METRICS_TOPICS, NET, "metrics.topics.max", INT, "100", 0, 10000, "", 0, "",                                     \
      "So many topics have figures of their own in /metrics; those of all others are added up.")                      \
    X(WAL_PORT, NET, "wal.port", PORT, "9291", 0, 65535, "", NO_EFFECT, "",                                           \
      "The port for replication between the nodes of a cluster.")                                                     \
    X(RAFT_PORT, NET, "raft.port", PORT, "5001", 0, 65535, "", NO_EFFECT, "",                                         \
      "The port for elections between the nodes of a cluster.")                                                       \
    X(MAX_CONNECTIONS, NET, "max.connections", INT, "2147483647", 1, CNK_INT32_MAX, "", 0, "",                        \
      "Connections at one time; more are closed at once. The limit of open files counts too.")                        \
    X(IDLE_MS, NET, "connections.max.idle.ms", MS, "600000", 0, CNK_INT64_MAX, "", 0, "",                             \
      "A connection without a request for this long is closed; 0: never.")                                            \
    X(REQUEST_MAX, NET, "socket.request.max.bytes", BYTES, "104857600", 1024, CNK_INT32_MAX, "", 0, "",               \
      "The largest request. A larger one closes the connection.")                                                     \
    X(SEND_BUFFER, NET, "socket.send.buffer.bytes", BYTES, "102400", -1, CNK_INT32_MAX, "", NO_EFFECT, "",            \
      "Kafka's size of a socket's send buffer. The kernel's own sizing is used.")                                     \
    X(RECEIVE_BUFFER, NET, "socket.receive.buffer.bytes", BYTES, "102400", -1, CNK_INT32_MAX, "", NO_EFFECT, "",      \
      "Kafka's size of a socket's receive buffer. The kernel's own sizing is used.")                                  \
    X(RECEIVE_MEMORY, NET, "queued.max.request.bytes", BYTES, "268435456", -1, CNK_INT64_MAX, "", 0, "",              \
      "Memory for requests that are being received or served, for each shard; past it sockets are not read. -1: "     \
      "256 MiB.")                                                                                                     \
    X(NETWORK_THREADS, NET, "num.network.threads", INT, "3", 1, 10000, "", NO_EFFECT, "",                             \
      "Kafka's number of network threads. See shards.")                                                               \
    X(IO_THREADS, NET, "num.io.threads", INT, "8", 1, 10000, "", NO_EFFECT, "",                                       \
      "Kafka's number of request threads. See shards.")                                                               \
    /* the write-ahead log */                                                                                         \
    X(WAL_PROFILE, STORAGE, "wal.profile", CHOICE, "adaptive", 0, 0, "adaptive|low|medium|high|ultra", 0, "",         \
      "When writes are synced. adaptive: at once, and together where there are many. low, medium, high, ultra: 2, 10, " \
      "50 or 100 ms after the first of them, for fewer and larger syncs. Nothing is acknowledged before its sync.")   \
    X(WAL_ROTATION_SIZE, STORAGE, "wal.rotation.size", BYTES, "250MB", 100000, 1000000000, "", 0, "",                 \
      "A file of the write-ahead log is sealed at this size.")                                                        \
    X(WAL_ROTATION_MS, STORAGE, "wal.rotation.ms", MS, "30m", 1000, CNK_INT32_MAX, "", 0, "",                         \
      "A file of the write-ahead log is sealed at this age.")                                                         \
    X(WAL_BUDGET, STORAGE, "wal.budget.bytes", BYTES, "1GiB", 400000, CNK_INT64_MAX, "", 0, "",                       \
      "Disk space of the write-ahead log. Over it produce requests wait until space is free. At least four files, to "  \
      "which it grows by itself where it is not set.")                                                                \
    X(WAL_CACHE, STORAGE, "wal.cache.bytes", BYTES, "64MiB", 1048576, CNK_INT64_MAX, "", 0, "",                       \
      "Memory for the newest data, for each shard: consumers at the tail are served from it.")                        \
    X(WAL_UNSYNCED, STORAGE, "wal.unsynced.bytes", BYTES, "64MiB", 1048576, CNK_INT64_MAX, "", 0, "",                 \
      "Memory for data on its way to the disk, for each shard. Over it produce requests wait.")                       \
    X(FLUSH_MESSAGES, STORAGE, "log.flush.interval.messages", INT, "9223372036854775807", 1, CNK_INT64_MAX, "", NO_EFFECT, "", \
      "Kafka's number of messages between syncs. Every acknowledged message is synced.")                              \
    X(FLUSH_MS, STORAGE, "log.flush.interval.ms", MS, "9223372036854775807", 0, CNK_INT64_MAX, "", NO_EFFECT, "",     \
      "Kafka's time between syncs. Every acknowledged message is synced.")                                            \
    X(STORE_BACKEND, STORAGE, "object.store.backend", CHOICE, "local", 0, 0, "local|s3|gcs|azure", REFUSED, "OBJECT_STORE_BACKEND", \
      "Where old data goes.")                                                                                         \
    X(LOCAL_STORAGE_PATH, STORAGE, "local.storage.path", TEXT, "./data", 1, 4000, "path", NO_EFFECT, "LOCAL_STORAGE_PATH", \
      "The directory of the local object store.")                                                                     \
    X(S3_ENDPOINT, STORAGE, "s3.endpoint", TEXT, "", 0, 1023, "url", NO_EFFECT, "S3_ENDPOINT", "S3: the service's address.")  \
    X(S3_REGION, STORAGE, "s3.region", TEXT, "us-east-1", 0, 255, "", NO_EFFECT, "S3_REGION AWS_REGION", "S3: the region.")   \
    X(S3_BUCKET, STORAGE, "s3.bucket", TEXT, "chronik-storage", 0, 255, "", NO_EFFECT, "S3_BUCKET", "S3: the bucket.") \
    X(S3_ACCESS_KEY, STORAGE, "s3.access.key", TEXT, "", 0, 1023, "", NO_EFFECT | SECRET, "S3_ACCESS_KEY AWS_ACCESS_KEY_ID", \
      "S3: the access key.")                                                                                          \
    X(S3_SECRET_KEY, STORAGE, "s3.secret.key", TEXT, "", 0, 1023, "", NO_EFFECT | SECRET, "S3_SECRET_KEY AWS_SECRET_ACCESS_KEY", \
      "S3: the secret key.")                                                                                          \
    X(S3_SESSION_TOKEN, STORAGE, "s3.session.token", TEXT, "", 0, 4095, "", NO_EFFECT | SECRET, "S3_SESSION_TOKEN AWS_SESSION_TOKEN", \
      "S3: the session token.")                                                                                       \
    X(S3_PATH_STYLE, STORAGE, "s3.path.style", BOOL, "true", 0, 0, "", NO_EFFECT, "S3_PATH_STYLE", "S3: bucket in the path.") \
    X(S3_DISABLE_SSL, STORAGE, "s3.disable.ssl", BOOL, "false", 0, 0, "", NO_EFFECT, "S3_DISABLE_SSL", "S3: plain HTTP.") \
    X(S3_PREFIX, STORAGE, "s3.prefix", TEXT, "", 0, 1023, "", NO_EFFECT, "S3_PREFIX", "S3: what keys begin with.")     \
    X(GCS_BUCKET, STORAGE, "gcs.bucket", TEXT, "", 0, 255, "", NO_EFFECT, "GCS_BUCKET", "GCS: the bucket.")           \
    X(GCS_PROJECT_ID, STORAGE, "gcs.project.id", TEXT, "", 0, 255, "", NO_EFFECT, "GCS_PROJECT_ID", "GCS: the project.") \
    X(GCS_ENDPOINT, STORAGE, "gcs.endpoint", TEXT, "", 0, 1023, "url", NO_EFFECT, "GCS_ENDPOINT", "GCS: the service's address.") \
    X(GCS_PREFIX, STORAGE, "gcs.prefix", TEXT, "", 0, 1023, "", NO_EFFECT, "GCS_PREFIX", "GCS: what keys begin with.") \
    X(GCS_CREDENTIALS, STORAGE, "gcs.credentials", TEXT, "", 0, 4000, "path", NO_EFFECT, "GOOGLE_APPLICATION_CREDENTIALS", \
      "GCS: the file with credentials.")                                                                              \
    X(AZURE_ACCOUNT, STORAGE, "azure.account.name", TEXT, "", 0, 255, "", NO_EFFECT, "AZURE_ACCOUNT_NAME AZURE_STORAGE_ACCOUNT", \
      "Azure: the account.")                                                                                          \
    X(AZURE_CONTAINER, STORAGE, "azure.container", TEXT, "", 0, 255, "", NO_EFFECT, "AZURE_CONTAINER", "Azure: the container.") \
    X(AZURE_KEY, STORAGE, "azure.storage.key", TEXT, "", 0, 1023, "", NO_EFFECT | SECRET, "AZURE_STORAGE_KEY", "Azure: the key.") \
    X(AZURE_ENDPOINT, STORAGE, "azure.endpoint", TEXT, "", 0, 1023, "url", NO_EFFECT, "AZURE_ENDPOINT", "Azure: the service's address.") \
    X(AZURE_EMULATOR, STORAGE, "azure.use.emulator", BOOL, "false", 0, 0, "", NO_EFFECT, "AZURE_USE_EMULATOR", "Azure: Azurite.") \
    X(AZURE_PREFIX, STORAGE, "azure.prefix", TEXT, "", 0, 1023, "", NO_EFFECT, "AZURE_PREFIX", "Azure: what keys begin with.") \
    /* topics */                                                                                                      \
    X(AUTO_CREATE, TOPICS, "auto.create.topics.enable", BOOL, "true", 0, 0, "", 0, "",                                \
      "Whether a client that asks for an unknown topic by name makes it.")                                            \
    X(DELETE_TOPIC, TOPICS, "delete.topic.enable", BOOL, "true", 0, 0, "", 0, "", "Whether topics may be deleted.")   \
    X(NUM_PARTITIONS, TOPICS, "num.partitions", INT, "1", 1, 10000, "", 0, "",                                        \
      "Partitions of a topic that is made without saying how many.")                                                  \
    X(REPLICATION_FACTOR, TOPICS, "default.replication.factor", INT, "1", 1, 32767, "", 0, "replication.factor",      \
      "Replicas of a topic that is made without saying how many.")                                                    \
    X(MIN_INSYNC, TOPICS, "min.insync.replicas", INT, "1", 1, 32767, "", 0, "",                                       \
      "With acks=all, how many replicas must have a message at least.")                                               \
    X(MESSAGE_MAX, TOPICS, "message.max.bytes", BYTES, "1048588", 0, CNK_INT32_MAX, "", 0, "",                        \
      "The largest record batch. A topic's max.message.bytes is stronger.")                                           \
    X(TIMESTAMP_TYPE, TOPICS, "log.message.timestamp.type", CHOICE, "CreateTime", 0, 0, "CreateTime|LogAppendTime", 0, "", \
      "Whose clock stamps messages: the producer's or the broker's.")                                                 \
    X(TIMESTAMP_BEFORE, TOPICS, "log.message.timestamp.before.max.ms", MS, "9223372036854775807", 0, CNK_INT64_MAX, "", 0, "", \
      "How far in the past a message's timestamp may be.")                                                            \
    X(TIMESTAMP_AFTER, TOPICS, "log.message.timestamp.after.max.ms", MS, "3600000", 0, CNK_INT64_MAX, "", 0, "",      \
      "How far in the future a message's timestamp may be.")                                                          \
    X(COMPRESSION_TYPE, TOPICS, "compression.type", CHOICE, "producer", 0, 0, "producer|uncompressed|gzip|snappy|lz4|zstd", REFUSED, "", \
      "The compression of stored batches; producer: as they come.")                                                   \
    X(CLEANUP_POLICY, TOPICS, "log.cleanup.policy", CHOICE, "delete", 0, 0, "delete|compact|compact,delete|delete,compact", REFUSED, "", \
      "What becomes of old messages.")                                                                                \
    X(RETENTION_HOURS, TOPICS, "log.retention.hours", INT, "168", -1, CNK_INT32_MAX, "hours", NO_EFFECT, "",          \
      "How long messages are kept. Nothing is removed by age yet.")                                                   \
    X(RETENTION_MINUTES, TOPICS, "log.retention.minutes", INT, "", -1, CNK_INT32_MAX, "minutes", NO_EFFECT, "",       \
      "How long messages are kept; stronger than the hours. Nothing is removed by age yet.")                          \
    X(RETENTION_MS, TOPICS, "log.retention.ms", MS, "", -1, CNK_INT64_MAX, "", NO_EFFECT, "",                         \
      "How long messages are kept; stronger than the minutes. Nothing is removed by age yet.")                        \
    X(RETENTION_BYTES, TOPICS, "log.retention.bytes", BYTES, "-1", -1, CNK_INT64_MAX, "", NO_EFFECT, "",              \
      "How much of a partition is kept; -1: all. Nothing is removed by size yet.")                                    \
    X(SEGMENT_BYTES, TOPICS, "log.segment.bytes", BYTES, "1073741824", 14, CNK_INT32_MAX, "", NO_EFFECT, "",          \
      "Kafka's size of a segment file.")                                                                              \
    X(ROLL_MS, TOPICS, "log.roll.ms", MS, "", 1, CNK_INT64_MAX, "", NO_EFFECT, "", "Kafka's age of a segment file.")  \
    X(ROLL_HOURS, TOPICS, "log.roll.hours", INT, "168", 1, CNK_INT32_MAX, "hours", NO_EFFECT, "",                     \
      "Kafka's age of a segment file.")                                                                               \
    X(UNCLEAN_ELECTION, TOPICS, "unclean.leader.election.enable", BOOL, "false", 0, 0, "", REFUSED, "",               \
      "Whether a replica that lacks acknowledged messages may lead.")                                                 \
    X(DEFAULT_SEARCHABLE, TOPICS, "default.searchable", BOOL, "false", 0, 0, "", NO_EFFECT, "",                       \
      "Whether topics are indexed for search where they do not say so themselves.")                                   \
    /* clients */                                                                                                     \
    X(FETCH_MAX, CLIENTS, "fetch.max.bytes", BYTES, "57671680", 1024, CNK_INT32_MAX, "", 0, "",                       \
      "The most that one fetch returns.")                                                                             \
    X(FETCH_SESSIONS, CLIENTS, "max.incremental.fetch.session.cache.slots", INT, "1000", 0, CNK_INT32_MAX, "", 0, "",   \
      "Incremental fetch sessions at one time. A client that gets none names all its partitions in each fetch.")      \
    X(PRODUCER_EXPIRATION, CLIENTS, "producer.id.expiration.ms", MS, "86400000", 1, CNK_INT32_MAX, "", 0, "",         \
      "How long an idle idempotent producer is remembered, by the timestamp of its last message. A retry that comes "   \
      "later is a new message.")                                                                                      \
    X(PRODUCER_CHECK, CLIENTS, "producer.id.expiration.check.interval.ms", MS, "600000", 1, CNK_INT32_MAX, "", 0, "", \
      "How often idle idempotent producers are looked for.")                                                          \
    X(PRODUCE_PROFILE, CLIENTS, "produce.profile", CHOICE, "low-latency", 0, 0, "low-latency|balanced|high-throughput|extreme", NO_EFFECT, "", \
      "Kept for old configurations: every request is answered as soon as it is durable. See wal.profile.")            \
    X(OFFSETS_PARTITIONS, CLIENTS, "offsets.topic.num.partitions", INT, "50", 1, 10000, "", 0, "",                    \
      "Partitions of the topic with consumer groups' offsets, when it is made.")                                                       \
    X(OFFSETS_REPLICATION, CLIENTS, "offsets.topic.replication.factor", INT, "3", 1, 32767, "", NO_EFFECT, "",        \
      "Replicas of the topic with consumer groups' offsets.")                                                         \
    X(OFFSETS_RETENTION, CLIENTS, "offsets.retention.minutes", INT, "10080", 1, CNK_INT32_MAX, "minutes", 0, "",       \
      "How long the offsets of an idle group are kept.")                                                              \
    X(OFFSETS_CHECK, CLIENTS, "offsets.retention.check.interval.ms", MS, "600000", 1, CNK_INT64_MAX / 1000000, "", 0, "", \
      "How often offsets are looked for that need not be kept.")                                                      \
    X(OFFSETS_METADATA, CLIENTS, "offset.metadata.max.bytes", BYTES, "4096", 0, 32767, "", 0, "",                     \
      "The largest text that a client may store beside an offset.")                                                   \
    X(OFFSETS_SEGMENT, CLIENTS, "offsets.topic.segment.bytes", BYTES, "104857600", 14, CNK_INT32_MAX, "", NO_EFFECT, "", \
      "Written down as segment.bytes of the topic with consumer groups' offsets.")                                                              \
    X(GROUP_MIN_SESSION, CLIENTS, "group.min.session.timeout.ms", MS, "6000", 0, CNK_INT32_MAX, "", 0, "",    \
      "The shortest session timeout of a group's member.")                                                            \
    X(GROUP_MAX_SESSION, CLIENTS, "group.max.session.timeout.ms", MS, "1800000", 0, CNK_INT32_MAX, "", 0, "", \
      "The longest session timeout of a group's member.")                                                             \
    X(GROUP_DELAY, CLIENTS, "group.initial.rebalance.delay.ms", MS, "3000", 0, CNK_INT32_MAX, "", 0, "",      \
      "How long a new group waits for more members.")                                                                 \
    X(GROUP_MAX_SIZE, CLIENTS, "group.max.size", INT, "2147483647", 1, CNK_INT32_MAX, "", 0, "",                      \
      "The most members of a group.")                                                                                 \
    X(TXN_TIMEOUT, CLIENTS, "transaction.max.timeout.ms", MS, "900000", 1, CNK_INT32_MAX, "", NO_EFFECT, "",          \
      "The longest transaction.")                                                                                     \
    X(TXN_PARTITIONS, CLIENTS, "transaction.state.log.num.partitions", INT, "50", 1, 10000, "", NO_EFFECT, "",        \
      "Partitions of the topic with the state of transactions.")                                                      \
    X(TXN_REPLICATION, CLIENTS, "transaction.state.log.replication.factor", INT, "3", 1, 32767, "", NO_EFFECT, "",    \
      "Replicas of the topic with the state of transactions.")                                                        \
    X(TXN_MIN_ISR, CLIENTS, "transaction.state.log.min.isr", INT, "2", 1, 32767, "", NO_EFFECT, "",                   \
      "In-sync replicas of the topic with the state of transactions.")                                                \
    /* security */                                                                                                    \
    X(ADMIN_API_KEY, SECURITY, "admin.api.key", TEXT, "", 0, 1023, "", NO_EFFECT | SECRET, "",                        \
      "The key that administrative HTTP requests must show. There are no such requests yet.")                         \
    X(SASL_USERS, SECURITY, "sasl.users", TEXT, "", 0, 65535, "user:password,…", REFUSED | SECRET, "",                \
      "The users that may log in.")                                                                                   \
    X(SASL_NO_DEFAULTS, SECURITY, "sasl.no.defaults", BOOL, "true", 0, 0, "", NO_EFFECT, "",                          \
      "No users exist by default, whatever this says.")                                                               \
    X(TLS_CERT, SECURITY, "tls.cert", TEXT, "", 0, 4000, "path", REFUSED, "", "The certificate for TLS.")             \
    X(TLS_KEY, SECURITY, "tls.key", TEXT, "", 0, 4000, "path", REFUSED, "", "The certificate's private key.")         \
    X(TLS_CA_CERT, SECURITY, "tls.ca.cert", TEXT, "", 0, 4000, "path", REFUSED, "",                                   \
      "The authorities whose client certificates are accepted.")                                                      \
    X(TLS_REQUIRE, SECURITY, "tls.require.client.cert", BOOL, "false", 0, 0, "", REFUSED, "",                         \
      "Whether clients must show a certificate.")                                                                     \
    /* clusters */                                                                                                    \
    X(CLUSTER_ENABLED, CLUSTER, "cluster.enabled", BOOL, "false", 0, 0, "", REFUSED, "enabled",                       \
      "Whether this node is one of several.")                                                                         \
    X(CLUSTER_PEERS, CLUSTER, "cluster.peers", TEXT, "", 0, 65535, "host:kafka:wal:raft,…", REFUSED, "peers",         \
      "The nodes of the cluster.")

#endif
