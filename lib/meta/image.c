/* The immutable image: making, sharing, finding.
 *
 * Topics are shared between versions by reference; a new version copies the two arrays of pointers alone. While an
 * image is being made it has one owner and may be changed; once published it never is.
 *
 * Any thread may read, reference and release. */
#include "base/assert.h"
#include "base/error.h"
#include "base/mem.h"
#include "meta/internal.h"

static int name_compare(const char *a, size_t a_len, const cnk_meta_topic *b);
static size_t name_position(const cnk_meta_image *image, const char *name, size_t len, bool *ret_found);
static size_t id_position(const cnk_meta_image *image, const cnk_uuid *id, bool *ret_found);
static bool legal_character(char c);

cnk_meta_image *cnk_meta_image_ref(cnk_meta_image *image) {
    atomic_fetch_add_explicit(&image->refs, 1, memory_order_relaxed);
    return image;
}

void cnk_meta_image_unref(cnk_meta_image *image) {
    if (image == NULL || atomic_fetch_sub_explicit(&image->refs, 1, memory_order_acq_rel) != 1) return;
    for (size_t i = 0; i < image->topic_count; i++) cnk_meta_topic_unref(image->by_name[i]);
    cnk_free(image->by_name);
    cnk_free(image->by_id);
    cnk_free(image);
}

const cnk_meta_topic *cnk_meta_topic_any(const cnk_meta_image *image, const char *name, size_t len) {
    bool found;
    size_t i = name_position(image, name, len, &found);
    return found ? image->by_name[i] : NULL;
}

const cnk_meta_topic *cnk_meta_topic_any_by_id(const cnk_meta_image *image, const cnk_uuid *id) {
    bool found;
    size_t i = id_position(image, id, &found);
    return found ? image->by_id[i] : NULL;
}

const cnk_meta_topic *cnk_meta_topic_by_name(const cnk_meta_image *image, const char *name, size_t len) {
    const cnk_meta_topic *t = cnk_meta_topic_any(image, name, len);
    return t && t->online ? t : NULL;
}

const cnk_meta_topic *cnk_meta_topic_by_id(const cnk_meta_image *image, const cnk_uuid *id) {
    const cnk_meta_topic *t = cnk_meta_topic_any_by_id(image, id);
    return t && t->online ? t : NULL;
}

const char *cnk_meta_topic_config(const cnk_meta_topic *topic, const char *name) {
    for (size_t i = 0; i < topic->config_count; i++)
        if (strcmp(topic->configs[i].name, name) == 0) return topic->configs[i].value;
    return NULL;
}

/* Kafka's org.apache.kafka.common.internals.Topic.validate. */
int cnk_topic_name_check(const char *name, size_t len, chronik_error *err) {
    if (len == 0)
        return cnk_error(err, CHRONIK_EINVALIDTOPIC, 0, "Topic name is invalid: the empty string is not allowed");
    if ((len == 1 && name[0] == '.') || (len == 2 && name[0] == '.' && name[1] == '.'))
        return cnk_error(err, CHRONIK_EINVALIDTOPIC, 0, "Topic name is invalid: '%.*s' is not allowed", (int)len, name);
    if (len > CNK_TOPIC_NAME_MAX)
        return cnk_error(err, CHRONIK_EINVALIDTOPIC, 0,
                         "Topic name is invalid: the length of a name is longer than the max allowed length %d",
                         CNK_TOPIC_NAME_MAX);
    for (size_t i = 0; i < len; i++)
        if (!legal_character(name[i]))
            return cnk_error(err, CHRONIK_EINVALIDTOPIC, 0,
                             "Topic name is invalid: '%.*s' contains one or more characters other than ASCII "
                             "alphanumerics, '.', '_' and '-'",
                             (int)len, name);
    return 0;
}

const cnk_meta_topic *cnk_meta_topic_collision(const cnk_meta_image *image, const char *name, size_t len) {
    const cnk_meta_topic *same = cnk_meta_topic_any(image, name, len);
    if (same || (memchr(name, '.', len) == NULL && memchr(name, '_', len) == NULL)) return same;
    for (size_t t = 0; t < image->topic_count; t++) {
        const cnk_meta_topic *topic = image->by_name[t];
        if (topic->name_len != len) continue;
        size_t i = 0;
        while (i < len && (name[i] == '.' ? '_' : name[i]) == (topic->name[i] == '.' ? '_' : topic->name[i])) i++;
        if (i == len) return topic;
    }
    return NULL;
}

int cnk_meta_image_empty(cnk_meta_image **ret_image) {
    cnk_meta_image *image = cnk_calloc(1, sizeof *image);
    if (image == NULL) return CHRONIK_ENOMEM;
    atomic_init(&image->refs, 1);
    image->next_stream = CNK_META_STREAM + 1;
    image->feature_level = 1;
    *ret_image = image;
    return 0;
}

int cnk_meta_image_copy(const cnk_meta_image *from, size_t extra_topics, cnk_meta_image **ret_image) {
    size_t room = from->topic_count + extra_topics;
    cnk_meta_image *image = cnk_malloc(sizeof *image);
    if (image == NULL) return CHRONIK_ENOMEM;
    *image = *from;
    atomic_init(&image->refs, 1);
    image->by_name = cnk_calloc(room ? room : 1, sizeof(cnk_meta_topic *));
    image->by_id = cnk_calloc(room ? room : 1, sizeof(cnk_meta_topic *));
    if (image->by_name == NULL || image->by_id == NULL) {
        cnk_free(image->by_name);
        cnk_free(image->by_id);
        cnk_free(image);
        return CHRONIK_ENOMEM;
    }
    for (size_t i = 0; i < from->topic_count; i++) {
        image->by_name[i] = from->by_name[i];
        image->by_id[i] = from->by_id[i];
        atomic_fetch_add_explicit(&image->by_name[i]->refs, 1, memory_order_relaxed);
    }
    *ret_image = image;
    return 0;
}

int cnk_meta_image_add(cnk_meta_image *image, cnk_meta_topic *topic) {
    bool by_name, by_id;
    size_t n = name_position(image, topic->name, topic->name_len, &by_name);
    size_t d = id_position(image, &topic->id, &by_id);
    if (by_name || by_id) return CHRONIK_EEXIST;
    memmove(image->by_name + n + 1, image->by_name + n, (image->topic_count - n) * sizeof(cnk_meta_topic *));
    memmove(image->by_id + d + 1, image->by_id + d, (image->topic_count - d) * sizeof(cnk_meta_topic *));
    image->by_name[n] = topic;
    image->by_id[d] = topic;
    image->topic_count++;
    image->partition_count += (size_t)topic->partition_total;
    return 0;
}

int cnk_meta_image_remove(cnk_meta_image *image, const cnk_uuid *id) {
    bool by_name, by_id;
    size_t d = id_position(image, id, &by_id);
    if (!by_id) return CHRONIK_ENOTFOUND;
    cnk_meta_topic *topic = image->by_id[d];
    size_t n = name_position(image, topic->name, topic->name_len, &by_name);
    CNK_ASSERT(by_name && image->by_name[n] == topic);
    image->topic_count--;
    image->partition_count -= (size_t)topic->partition_total;
    memmove(image->by_name + n, image->by_name + n + 1, (image->topic_count - n) * sizeof(cnk_meta_topic *));
    memmove(image->by_id + d, image->by_id + d + 1, (image->topic_count - d) * sizeof(cnk_meta_topic *));
    cnk_meta_topic_unref(topic);
    return 0;
}

int cnk_meta_image_replace(cnk_meta_image *image, cnk_meta_topic *topic) {
    bool by_name, by_id;
    size_t n = name_position(image, topic->name, topic->name_len, &by_name);
    size_t d = id_position(image, &topic->id, &by_id);
    if (!by_name || !by_id || image->by_name[n] != image->by_id[d]) return CHRONIK_ENOTFOUND;
    image->partition_count += (size_t)topic->partition_total - (size_t)image->by_name[n]->partition_total;
    cnk_meta_topic_unref(image->by_name[n]);
    image->by_name[n] = topic;
    image->by_id[d] = topic;
    return 0;
}

/* `base`: of the partitions before these `count`; NULL: none. */
static cnk_meta_leaders *leaders_new(size_t count, cnk_meta_leaders *base) {
    cnk_meta_leaders *leaders = cnk_calloc(1, sizeof *leaders + count * sizeof leaders->at[0]);
    if (leaders == NULL) return NULL;
    atomic_init(&leaders->refs, 1);
    leaders->led = 0;
    leaders->base = base;
    if (base) cnk_meta_leaders_ref(base);
    for (size_t i = 0; i < count; i++) {
        atomic_init(&leaders->at[i].node, -1);
        atomic_init(&leaders->at[i].epoch, -1);
    }
    return leaders;
}

/* All but the leaders. */
static int topic_alloc(const char *name, size_t name_len, const cnk_uuid *id, int32_t partitions, size_t configs,
                       cnk_meta_topic **ret_topic) {
    size_t count = (size_t)partitions;
    char *text = NULL;
    cnk_meta_topic *t = cnk_calloc(1, sizeof *t);
    if (t == NULL) return CHRONIK_ENOMEM;
    atomic_init(&t->refs, 1);
    t->id = *id;
    t->name_len = (uint16_t)name_len;
    t->partition_count = t->partition_total = partitions;
    t->name = text = cnk_malloc(name_len + 1);
    t->partitions = cnk_calloc(count, sizeof *t->partitions);
    t->configs = cnk_calloc(configs ? configs : 1, sizeof *t->configs);
    if (text == NULL || t->partitions == NULL || t->configs == NULL) {
        cnk_meta_topic_unref(t);
        return CHRONIK_ENOMEM;
    }
    memcpy(text, name, name_len);
    text[name_len] = 0;
    t->config_count = configs;
    *ret_topic = t;
    return 0;
}

int cnk_meta_topic_new(const char *name, size_t name_len, const cnk_uuid *id, int32_t partitions, size_t configs,
                       cnk_meta_topic **ret_topic) {
    cnk_meta_topic *t = NULL;
    int rc = topic_alloc(name, name_len, id, partitions, configs, &t);
    if (rc != 0) return rc;
    t->leaders = leaders_new((size_t)partitions, NULL);
    if (t->leaders == NULL) {
        cnk_meta_topic_unref(t);
        return CHRONIK_ENOMEM;
    }
    for (int32_t i = 0; i < partitions; i++) t->partitions[i].leader = &t->leaders->at[i];
    *ret_topic = t;
    return 0;
}

int cnk_meta_topic_clone(const cnk_meta_topic *from, int32_t added, size_t configs, cnk_meta_topic **ret_topic) {
    cnk_meta_topic *t = NULL;
    const bool same_configs = configs == SIZE_MAX;
    int rc = topic_alloc(from->name, from->name_len, &from->id, from->partition_total + added,
                         same_configs ? from->config_count : configs, &t);
    if (rc != 0) return rc;
    if (added > 0) {
        t->leaders = leaders_new((size_t)added, from->leaders);
        if (t->leaders) t->leaders->led = from->partition_count;
    } else {
        t->leaders = from->leaders;
        cnk_meta_leaders_ref(t->leaders);
    }
    if (t->leaders == NULL) {
        cnk_meta_topic_unref(t);
        return CHRONIK_ENOMEM;
    }
    memcpy(t->partitions, from->partitions, (size_t)from->partition_total * sizeof *t->partitions);
    for (int32_t i = 0; i < added; i++) t->partitions[from->partition_total + i].leader = &t->leaders->at[i];
    t->partition_count = from->partition_count;
    t->internal = from->internal;
    t->online = from->online;
    t->epoch_floor = from->epoch_floor;
    t->settings = from->settings;
    for (size_t i = 0; same_configs && i < from->config_count; i++) {
        t->configs[i].name = cnk_strdup(from->configs[i].name);
        t->configs[i].value = cnk_strdup(from->configs[i].value);
        if (t->configs[i].name == NULL || t->configs[i].value == NULL) {
            cnk_meta_topic_unref(t);
            return CHRONIK_ENOMEM;
        }
    }
    *ret_topic = t;
    return 0;
}

void cnk_meta_topic_unref(cnk_meta_topic *t) {
    if (t == NULL || atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) != 1) return;
    for (size_t i = 0; t->configs && i < t->config_count; i++) {
        cnk_free(t->configs[i].name);
        cnk_free(t->configs[i].value);
    }
    cnk_meta_leaders_unref(t->leaders);
    cnk_free(t->configs);
    cnk_free(t->partitions);
    cnk_free((void *)(uintptr_t)t->name);
    cnk_free(t);
}

void cnk_meta_leaders_ref(cnk_meta_leaders *leaders) {
    atomic_fetch_add_explicit(&leaders->refs, 1, memory_order_relaxed);
}

void cnk_meta_leaders_unref(cnk_meta_leaders *leaders) {
    while (leaders && atomic_fetch_sub_explicit(&leaders->refs, 1, memory_order_acq_rel) == 1) {
        cnk_meta_leaders *base = leaders->base;
        cnk_free(leaders);
        leaders = base;
    }
}

static int name_compare(const char *a, size_t a_len, const cnk_meta_topic *b) {
    size_t common = a_len < b->name_len ? a_len : b->name_len;
    int c = common ? memcmp(a, b->name, common) : 0;
    return c != 0 ? c : (a_len > b->name_len) - (a_len < b->name_len);
}

static size_t name_position(const cnk_meta_image *image, const char *name, size_t len, bool *ret_found) {
    size_t low = 0, high = image->topic_count;
    *ret_found = false;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int c = name_compare(name, len, image->by_name[mid]);
        if (c == 0) {
            *ret_found = true;
            return mid;
        }
        if (c < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return low;
}

static size_t id_position(const cnk_meta_image *image, const cnk_uuid *id, bool *ret_found) {
    size_t low = 0, high = image->topic_count;
    *ret_found = false;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int c = memcmp(id->bytes, image->by_id[mid]->id.bytes, sizeof id->bytes);
        if (c == 0) {
            *ret_found = true;
            return mid;
        }
        if (c < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return low;
}

static bool legal_character(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
           c == '-';
}
