from django.contrib import admin
from django.urls import include, path

admin.site.site_header = admin.site.site_title = "django-echo-objects"

urlpatterns = [
    path("admin/", admin.site.urls),
    # Last: it answers every path that nothing above has taken.
    path("", include("echo.urls")),
]
