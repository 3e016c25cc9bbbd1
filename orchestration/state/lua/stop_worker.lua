-- A worker has stopped: its slots are no more. Runners that it left behind expire.
--
-- ARGV: worker
-- INCLUDE: time fleet
-- Reply: queues it served*
-- Refusals: none
-- Stream: nothing

redis.call('DEL', worker_runners_key(worker))
return forget_worker(worker)
