from django.contrib import admin
from django.urls import include, path, re_path

from echo.views import usage

admin.site.site_header = admin.site.site_title = "django-echo-objects"

urlpatterns = [
    path("admin/", admin.site.urls),
    path("", include("echo.urls")),
    # As the original: every other path tells how to use it. A site of its own has a 404 there.
    re_path("", usage),
]
