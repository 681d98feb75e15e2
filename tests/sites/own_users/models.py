"""A user model of the site's own: a UUID as primary key, and no permissions."""

import uuid

from django.contrib.auth.models import AbstractBaseUser, BaseUserManager
from django.db import models


class Person(AbstractBaseUser):
    code = models.UUIDField(primary_key=True, default=uuid.uuid4)
    username = models.CharField(max_length=50, unique=True)
    first_name = models.CharField(max_length=50, default="")
    is_active = models.BooleanField(default=True)

    USERNAME_FIELD = "username"

    objects = BaseUserManager()
