// sarama against a broker; what is checked stands in driver/driver.go.
package main

import (
	"context"
	"io"
	"log"
	"sync/atomic"
	"time"

	"chronik.test/clients/driver"
	"github.com/IBM/sarama"
)

var codecs = map[string]sarama.CompressionCodec{"none": sarama.CompressionNone, "gzip": sarama.CompressionGZIP,
	"snappy": sarama.CompressionSnappy, "lz4": sarama.CompressionLZ4, "zstd": sarama.CompressionZSTD}

type client struct{ broker string }

func config() *sarama.Config {
	c := sarama.NewConfig()
	c.Version = sarama.MaxVersion
	c.Producer.RequiredAcks = sarama.WaitForAll
	c.Producer.Idempotent = true
	c.Net.MaxOpenRequests = 1
	c.Producer.Return.Successes = true
	c.Producer.Partitioner = sarama.NewManualPartitioner
	c.Producer.Flush.MaxMessages = 100
	c.Consumer.Offsets.Initial = sarama.OffsetOldest
	c.Consumer.Offsets.AutoCommit.Enable = false
	c.Consumer.MaxWaitTime = 20 * time.Millisecond // a commit waits for the fetch on its connection
	c.Consumer.Group.Session.Timeout = 6 * time.Second
	c.Consumer.Group.Heartbeat.Interval = 500 * time.Millisecond
	return c
}

func (c client) Name() string     { return "sarama" }
func (c client) Codecs() []string { return []string{"none", "gzip", "snappy", "lz4", "zstd"} }

func (c client) admin(f func(sarama.ClusterAdmin) error) error {
	a, err := sarama.NewClusterAdmin([]string{c.broker}, config())
	if err != nil {
		return err
	}
	defer a.Close()
	return f(a)
}

func (c client) Create(topic string) error {
	return c.admin(func(a sarama.ClusterAdmin) error {
		return a.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: driver.Partitions, ReplicationFactor: 1}, false)
	})
}

func (c client) Delete(topic string) error {
	return c.admin(func(a sarama.ClusterAdmin) error { return a.DeleteTopic(topic) })
}

func (c client) Produce(topic, codec string, records []driver.Record) error {
	cfg := config()
	cfg.Producer.Compression = codecs[codec]
	p, err := sarama.NewSyncProducer([]string{c.broker}, cfg)
	if err != nil {
		return err
	}
	defer p.Close()
	var all []*sarama.ProducerMessage
	for _, r := range records {
		m := &sarama.ProducerMessage{Topic: topic, Partition: int32(r.Partition), Timestamp: r.Time}
		if r.Key != nil {
			m.Key = sarama.ByteEncoder(r.Key)
		}
		if r.Value != nil {
			m.Value = sarama.ByteEncoder(r.Value)
		}
		for _, h := range r.Headers {
			m.Headers = append(m.Headers, sarama.RecordHeader{Key: []byte(h.Key), Value: h.Value})
		}
		all = append(all, m)
	}
	return p.SendMessages(all)
}

func record(m *sarama.ConsumerMessage) *driver.Record {
	r := &driver.Record{Partition: int(m.Partition), Offset: m.Offset, Key: m.Key, Value: m.Value, Time: m.Timestamp}
	for _, h := range m.Headers {
		r.Headers = append(r.Headers, driver.Header{Key: string(h.Key), Value: h.Value})
	}
	return r
}

func (c client) Read(topic string, count int, each func(*driver.Record) error) error {
	all, err := sarama.NewConsumer([]string{c.broker}, config())
	if err != nil {
		return err
	}
	defer all.Close()
	messages := make(chan *sarama.ConsumerMessage)
	for p := int32(0); p < driver.Partitions; p++ {
		one, err := all.ConsumePartition(topic, p, sarama.OffsetOldest)
		if err != nil {
			return err
		}
		defer one.AsyncClose()
		go func() {
			for m := range one.Messages() {
				messages <- m
			}
		}()
	}
	for range count {
		select {
		case m := <-messages:
			if err := each(record(m)); err != nil {
				return err
			}
		case <-time.After(driver.Timeout):
			return context.DeadlineExceeded
		}
	}
	return nil
}

func (c client) offsets(topic string, at int64) (map[int]int64, error) {
	all, err := sarama.NewClient([]string{c.broker}, config())
	if err != nil {
		return nil, err
	}
	defer all.Close()
	found := map[int]int64{}
	for p := int32(0); p < driver.Partitions && err == nil; p++ {
		found[int(p)], err = all.GetOffset(topic, p, at)
	}
	return found, err
}

func (c client) Ends(topic string) (map[int]int64, error) {
	return c.offsets(topic, sarama.OffsetNewest)
}
func (c client) At(topic string, when time.Time) (map[int]int64, error) {
	return c.offsets(topic, when.UnixMilli())
}

func (c client) Committed(topic string) (map[int]int64, error) {
	found := map[int]int64{}
	return found, c.admin(func(a sarama.ClusterAdmin) error {
		answer, err := a.ListConsumerGroupOffsets(topic, map[string][]int32{topic: {0, 1, 2}})
		for p := int32(0); err == nil && p < driver.Partitions; p++ {
			found[int(p)] = max(answer.GetBlock(topic, p).Offset, 0)
		}
		return err
	})
}

type member struct {
	group    sarama.ConsumerGroup
	stop     context.CancelFunc
	messages chan *sarama.ConsumerMessage
	session  atomic.Value
	assigned atomic.Int32
}

func (m *member) Setup(s sarama.ConsumerGroupSession) error {
	n := 0
	for _, ps := range s.Claims() {
		n += len(ps)
	}
	m.session.Store(s)
	m.assigned.Store(int32(n))
	return nil
}
func (m *member) Cleanup(sarama.ConsumerGroupSession) error { return nil }
func (m *member) ConsumeClaim(s sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case one, ok := <-claim.Messages():
			if !ok {
				return nil
			}
			select {
			case m.messages <- one:
			case <-s.Context().Done():
				return nil
			}
		case <-s.Context().Done():
			return nil
		}
	}
}

func (c client) Join(topic string) (driver.Member, error) {
	group, err := sarama.NewConsumerGroup([]string{c.broker}, topic, config())
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	m := &member{group: group, stop: stop, messages: make(chan *sarama.ConsumerMessage)}
	go func() {
		for ctx.Err() == nil {
			if err := group.Consume(ctx, []string{topic}, m); err != nil {
				time.Sleep(50 * time.Millisecond)
			}
		}
	}()
	return m, nil
}

func (m *member) Assigned() int { return int(m.assigned.Load()) }
func (m *member) Poll() (*driver.Record, error) {
	select {
	case one := <-m.messages:
		m.session.Load().(sarama.ConsumerGroupSession).MarkMessage(one, "")
		return record(one), nil
	case <-time.After(100 * time.Millisecond):
		return nil, nil
	}
}
func (m *member) Commit() error {
	m.session.Load().(sarama.ConsumerGroupSession).Commit()
	return nil
}
func (m *member) Close() error {
	m.stop()
	return m.group.Close()
}

func main() {
	sarama.Logger = log.New(io.Discard, "", 0)
	driver.Main(func(broker string) (driver.Client, error) { return client{broker}, nil })
}
