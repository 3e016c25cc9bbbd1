-- A process has died, perhaps after it was told to publish runners and before it did: all that are on their way are published
-- once more, because nothing says who was told. There are never more than the fleet has slots.
--
-- ARGV:
-- INCLUDE: time ready permits parked slots crash
-- Reply: runners to publish (session, runner, queue, branch timeout, message)*
-- Refusals: none
-- Stream: nothing

local publish = {}
resend(publish)
return publish
