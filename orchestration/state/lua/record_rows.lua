-- Send rows of a session that was never opened.
--
-- ARGV: session day worker rows
-- INCLUDE: time emit
-- Reply: 1
-- Refusals: none
-- Stream: one entry with the rows

emit(session, day, worker, { rows })
return 1
