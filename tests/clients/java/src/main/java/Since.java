// What Suite asks otherwise of older clients; this is for 4.3.
import java.util.List;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.common.Uuid;

class Since {
    static final OffsetSpec MAX_TIMESTAMP = OffsetSpec.maxTimestamp();

    static TopicDescription describe(Admin admin, String topic) throws Exception {
        return admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic);
    }

    static boolean hasId(TopicDescription d) { return !d.topicId().equals(Uuid.ZERO_UUID); }

    static boolean lists(Admin admin, String group) throws Exception {
        return admin.listGroups().all().get().stream().anyMatch(g -> g.groupId().equals(group));
    }
}
