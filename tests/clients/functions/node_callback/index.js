'use strict';
const fs = require('fs');
const path = require('path');

let count = 0;

exports.main_handler = (event, context, callback) => {
    context.callbackWaitsForEmptyEventLoop = false;
    count += 1;
    console.log('start main handler', context.request_id);
    if (event.fail) {
        callback(new Error('asked to fail'));
        return;
    }
    if (event.reject) {
        Promise.reject(new TypeError('nobody catches this'));
        return;
    }
    fs.readFile(path.join(__dirname, 'greeting.txt'), 'utf8', (err, text) => {
        if (err) return callback(err);
        setTimeout(() => callback(null, {
            greeting: text.trim(),
            count,
            left: context.getRemainingTimeInMillis() > 0,
            name: context.function_name,
            environ: JSON.parse(context.environment).WHO,
        }), 5);
    });
};
