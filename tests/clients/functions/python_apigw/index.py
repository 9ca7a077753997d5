# -*- coding: utf8 -*-
import json
def main_handler(event, context):
    if 'requestContext' not in event.keys():
        return {"code": 410, "errorMsg": "event is not come from api gateway"}
    if event["requestContext"]["path"] != "/article/{articleId}" and event["requestContext"]["path"] != "/article":
        return {"code": 411, "errorMsg": "request is not from setting api path"}
    if event["requestContext"]["path"] == "/article" and event["requestContext"]["httpMethod"] == "GET":
        retmsg = {'code': 0, 'list': ['article-1', 'article-2']}
        return {
            "isBase64Encoded": False,
            "statusCode": 200,
            "headers": {"Content-Type": "application/json; charset=utf-8", "Access-Control-Allow-Origin": "*"},
            "body": json.dumps(retmsg, ensure_ascii=False)
        }
    if event["requestContext"]["httpMethod"] == "GET":
        articleId = int(event["pathParameters"]["articleId"])
        return {"isBase64Encoded": False, "statusCode": 200, "headers": {"Content-Type": "text/html; charset=utf-8"}, "body": "<html>文章 %d</html>" % articleId}
    return {"code": 413, "errorMsg": "request is not correctly execute"}
