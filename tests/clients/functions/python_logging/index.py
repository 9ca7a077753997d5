# -*- coding: utf8 -*-
import logging
import os
import sys

logging.basicConfig(level=logging.INFO, stream=sys.stdout)
logger = logging.getLogger()
logger.setLevel(level=logging.INFO)

COUNT = 0


def main_handler(event, context):
    global COUNT
    COUNT += 1
    logger.info("start main handler")
    logger.warning('request %s of %s', context['request_id'], context['function_name'])
    if 'divide' in event:
        return 1 / event['divide']
    return {
        'count': COUNT,
        'request_id': context['request_id'],
        'memory': context['memory_limit_in_mb'],
        'timeout': context['time_limit_in_ms'],
        'version': context['function_version'],
        'namespace': context['namespace'],
        'who': os.environ.get('WHO'),
        'cwd': os.getcwd(),
        'runenv': os.environ.get('TENCENTCLOUD_RUNENV'),
    }
