from django.apps import AppConfig
from django.utils.translation import pgettext_lazy


class EchoConfig(AppConfig):
    name = "echo"
    verbose_name = pgettext_lazy("echo", "Connections")

    def ready(self) -> None:
        from echo import checks  # noqa: F401  (registers them)
