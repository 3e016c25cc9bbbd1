"""Flower's application with our pages, and what guards all of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flower
from flower.app import Flower

from tasks.celery_app import usable_settings
from tasks.dashboard.feeds import Feeds
from tasks.dashboard.guard import Guard, SafeHeaders, secure_options
from tasks.dashboard.handlers import Refused
from tasks.dashboard.loader import PageLoader
from tasks.dashboard.reads import Reads
from tasks.dashboard.routes import routes
from tasks.dashboard.run import Pictures
from tasks.dashboard.run_watch import RunWatches


class ProcessorFlower(Flower):
    """Flower, with our pages below `/flow` and links to them on its own pages.

    Raises: SystemExit: without authentication it would be reached from outside.
    """

    def __init__(self, options: Any, capp: Any, **settings: Any) -> None:
        settings_of_processor = usable_settings()
        secure_options(options)
        settings["template_loader"] = PageLoader(Path(flower.__file__).parent / "templates")
        settings["compress_response"] = True
        settings["xsrf_cookie_kwargs"] = {"samesite": "Lax"}
        super().__init__(options=options, capp=capp, **settings)
        self.guard = Guard(options, settings["cookie_secret"], settings_of_processor.dashboard_operators)
        self.reads = Reads(settings_of_processor)
        self.feeds = Feeds(self.reads)
        self.pictures = Pictures(self.reads)
        self.watches = RunWatches(self.reads)
        self.add_transform(SafeHeaders)
        prefix = f"/{options.url_prefix.strip('/')}" if options.url_prefix else ""
        self.add_handlers(r".*", routes(prefix))

    def find_handler(self, request: Any, **arguments: Any) -> Any:
        """Nothing of a refused request, on Flower's pages neither, gets to a handler."""
        refusal = self.guard.refusal_of(request)
        if refusal is not None:
            return self.get_handler_delegate(request, Refused, {"reason": refusal})
        return super().find_handler(request, **arguments)

    def stop(self) -> None:
        """Flower has ended, with all that our pages opened."""
        self.feeds.close()
        self.watches.close()
        super().stop()
        self.reads.close()
