// What Suite (../java) asks otherwise of older clients; this is for 2.8.
import java.util.List;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.TopicDescription;

class Since {
    static final OffsetSpec MAX_TIMESTAMP = null; // 3.0

    static TopicDescription describe(Admin admin, String topic) throws Exception {
        return admin.describeTopics(List.of(topic)).all().get().get(topic);
    }

    static boolean hasId(TopicDescription d) { return true; } // 3.1

    static boolean lists(Admin admin, String group) throws Exception {
        return admin.listConsumerGroups().all().get().stream().anyMatch(g -> g.groupId().equals(group));
    }
}
